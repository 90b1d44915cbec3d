"""The bundle and the arithmetic both sides share; imports no framework, neither service nor training."""
