"""Analysis without a language model: ranking, quoting and counting a text's own words."""
