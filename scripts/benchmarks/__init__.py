"""What ``somite-benchmark`` measures, one module for each benchmark and the parts they share."""
