"""Data sets that hold many images in a file: tar shards, Arrow and Parquet files."""
