"""The steps of the Dags: what each task does, with the collaborators that it is given."""
