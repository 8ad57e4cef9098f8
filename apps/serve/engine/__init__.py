"""Engines: token ids in, token ids out. Everything that is text lives above them."""
