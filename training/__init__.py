"""From images to a bundle: data, model, train, evaluate, calibrate, export."""
