"""The JSON schemas of a results folder, for programs that read or write one without uebench.

They are generated from the models that `uebench report` and `uebench validate` read the files with.
`python -m uebench.report.schema` writes them into `schemas/`, which is published with the package.
"""

import json
from pathlib import Path

from pydantic import BaseModel

from .records import RecordsFile, RunFacts

FOLDER = Path(__file__).with_name("schemas")


def schema_texts() -> dict[str, str]:
    """Return the text of each schema by its file name."""
    models: dict[str, type[BaseModel]] = {
        "run.schema.json": RunFacts,
        "records.schema.json": RecordsFile,
    }
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        name: json.dumps(draft | model.model_json_schema(), indent=2) + "\n"
        for name, model in models.items()
    }


if __name__ == "__main__":
    for name, text in schema_texts().items():
        (FOLDER / name).write_text(text)
