"""How much poison gets through screening, training and the gate, and what of it is served."""
