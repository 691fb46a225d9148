"""How a target model is trained and judged, and detectors, which judge a training set."""
