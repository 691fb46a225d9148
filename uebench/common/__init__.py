"""Small tools that every room uses: specs, texts, versions."""
