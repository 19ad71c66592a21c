# The image of every Airflow service. `docker compose up --build` builds it; docs/operations.md says how to upgrade it.
ARG AIRFLOW_IMAGE=apache/airflow:3.3.2-python3.12

FROM ${AIRFLOW_IMAGE} AS airflow
# What changes seldom comes first: a change of code builds nothing but the last layers.
# The lock goes on top of what the image ships; `pip check` proves that nothing of that was broken.
RUN --mount=type=cache,target=/tmp/.cache/pip,uid=50000,gid=0 \
    --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \
    pip install --require-hashes --requirement /tmp/requirements.txt && pip check
