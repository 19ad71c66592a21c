from coinwatch.local.environment import NO_AWS, airflow_environment, sandbox_environment

USER = {
    "PATH": "/bin",
    "AIRFLOW_CONN_SLACK_DEFAULT": "slackwebhook://real",
    "AIRFLOW_VAR_X": "1",
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__SECRETS__BACKEND": "a.Backend",
    "AIRFLOW_HOME": "/elsewhere",
    "AIRFLOW_CONFIG": "/elsewhere/airflow.cfg",
    "_AIRFLOW_PROCESS_CONTEXT": "client",
    "AWS_PROFILE": "production",
    "BITCOIN_RAW_PATH": "/real/raw.csv",
    "COINWATCH_COINS": "bitcoin,ethereum",
    "COINWATCH_HEARTBEAT_URL": "https://hc-ping.com/real",
    "COINWATCH_S3_BUCKET": "real",
    "COINWATCH_S3_PREFIX": "real",
    "COINWATCH_DATA_DIR": "/real",
    "NO_PROXY": "example.org",
}


def test_nothing_that_leads_to_real_services_or_real_data_reaches_the_sandbox():
    values = {"COINWATCH_DATA_DIR": "/sandbox", "COINWATCH_S3_BUCKET": "sandbox", "AIRFLOW_CONN_X": "ours"}
    assert sandbox_environment(USER, values) == {
        "PATH": "/bin",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW_HOME": "/elsewhere",
        "AIRFLOW_CONFIG": "/elsewhere/airflow.cfg",
        "_AIRFLOW_PROCESS_CONTEXT": "client",
        "COINWATCH_COINS": "bitcoin,ethereum",
        "NO_PROXY": "example.org",
        **NO_AWS,
        **values,
    }


def test_airflow_is_configured_by_its_home_alone_and_keeps_the_users_connections():
    assert airflow_environment(USER, "/home/of/it") == {
        "PATH": "/bin",
        "AIRFLOW_CONN_SLACK_DEFAULT": "slackwebhook://real",
        "AIRFLOW_VAR_X": "1",
        "AIRFLOW__SECRETS__BACKEND": "a.Backend",
        "AIRFLOW_HOME": "/home/of/it",
        "AWS_PROFILE": "production",
        "BITCOIN_RAW_PATH": "/real/raw.csv",
        "COINWATCH_COINS": "bitcoin,ethereum",
        "COINWATCH_HEARTBEAT_URL": "https://hc-ping.com/real",
        "COINWATCH_S3_BUCKET": "real",
        "COINWATCH_S3_PREFIX": "real",
        "COINWATCH_DATA_DIR": "/real",
        "NO_PROXY": "example.org,127.0.0.1,localhost",
        "no_proxy": "example.org,127.0.0.1,localhost",
    }
