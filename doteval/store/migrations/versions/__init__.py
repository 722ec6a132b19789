"""One module for each schema version. A version that was released is never changed."""
