"""The bundle and the arithmetic both sides share; no framework, neither service nor training."""
