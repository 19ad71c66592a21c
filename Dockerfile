# Images of the Airflow services and of the sandbox. How to change the version of Airflow: docs/operations.md.
ARG AIRFLOW_IMAGE=apache/airflow:3.3.2-python3.12

FROM ${AIRFLOW_IMAGE} AS base
# The lock goes on top of what the image ships; `pip check` proves that both fit together.
RUN --mount=type=cache,target=/tmp/.cache/pip,uid=50000,gid=0 \
    --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \
    pip install --require-hashes --requirement /tmp/requirements.txt && pip check
ENV PYTHONPATH=/opt/airflow/include

# The sandbox's CoinGecko, Slack and S3; what only they need stays out of the production image.
FROM base AS sandbox
RUN --mount=type=cache,target=/tmp/.cache/pip,uid=50000,gid=0 \
    --mount=type=bind,source=requirements-sandbox.txt,target=/tmp/requirements.txt \
    pip install --require-hashes --requirement /tmp/requirements.txt && pip check
# A new volume gets the owner of the folder it is mounted on.
RUN mkdir /home/airflow/sandbox
COPY --chown=airflow:0 include/ /opt/airflow/include/
ENTRYPOINT ["/usr/bin/dumb-init", "--", "python", "-m", "coinwatch.sandbox.server"]

FROM base AS airflow
COPY --chown=airflow:0 plugins/ /opt/airflow/plugins/
COPY --chown=airflow:0 include/ /opt/airflow/include/
COPY --chown=airflow:0 dags/ /opt/airflow/dags/
