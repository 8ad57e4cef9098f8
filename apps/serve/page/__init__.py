"""The web page: chat with a model, compare two, vote."""
