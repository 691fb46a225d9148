"""How a target model is trained and judged."""
