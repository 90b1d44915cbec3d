"""Budget policies: who leaves at an exit and who goes on. One file each, pure."""
