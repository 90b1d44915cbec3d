"""The server: answers on time and on budget."""
