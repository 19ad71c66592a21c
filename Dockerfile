# The image of every Airflow service, and that of the sandbox; `docker compose up --build` builds what it needs.
# How to change the version of Airflow: docs/operations.md.
ARG AIRFLOW_IMAGE=apache/airflow:3.3.2-python3.12

FROM ${AIRFLOW_IMAGE} AS base
# What changes seldom comes first: a change of the code builds nothing but the layers of the code.
# The lock goes on top of what the image ships, and `pip check` proves that it broke nothing of that.
RUN --mount=type=cache,target=/tmp/.cache/pip,uid=50000,gid=0 \
    --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \
    pip install --require-hashes --requirement /tmp/requirements.txt && pip check
ENV PYTHONPATH=/opt/airflow/include

# The stand-ins for CoinGecko, Slack and S3; what they need more never comes into the image of production.
FROM base AS sandbox
RUN --mount=type=cache,target=/tmp/.cache/pip,uid=50000,gid=0 \
    --mount=type=bind,source=requirements-sandbox.txt,target=/tmp/requirements.txt \
    pip install --require-hashes --requirement /tmp/requirements.txt && pip check
# A new volume takes the owner of the folder that it is mounted on.
RUN mkdir /home/airflow/sandbox
COPY --chown=airflow:0 include/ /opt/airflow/include/
ENTRYPOINT ["/usr/bin/dumb-init", "--", "python", "-m", "coinwatch.sandbox.server"]

FROM base AS airflow
COPY --chown=airflow:0 airflow_settings.yaml /opt/airflow/
COPY --chown=airflow:0 plugins/ /opt/airflow/plugins/
COPY --chown=airflow:0 include/ /opt/airflow/include/
COPY --chown=airflow:0 dags/ /opt/airflow/dags/
