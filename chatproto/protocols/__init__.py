"""The Twisted protocols, one module for each kind of client."""
