"""Analysis without a language model: ranking, quoting and counting the words of a text."""
