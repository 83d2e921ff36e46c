"""Reports: claims, pictures, sweeps and runs on one HTML page that needs nothing but itself."""
