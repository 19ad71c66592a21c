-- Roles and databases of the stack. `init` runs this with psql at every start: it creates what is missing and sets each
-- role's current password. The variables of the environment are in docker-compose.yaml and coinwatch.compose.init.
\set ON_ERROR_STOP on
\getenv airflow_db AIRFLOW_DB
\getenv warehouse_db WAREHOUSE_DB
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv warehouse_password WAREHOUSE_PASSWORD
\getenv analyst_password ANALYST_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name) FROM (VALUES ('airflow'), ('coinwatch'), ('analyst')) AS roles (name)
WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE airflow PASSWORD :'airflow_password';
ALTER ROLE coinwatch PASSWORD :'warehouse_password';
-- Reads the warehouse and nothing else. The time limit keeps a forgotten query from blocking the pipeline.
ALTER ROLE analyst PASSWORD :'analyst_password';
ALTER ROLE analyst SET default_transaction_read_only = on;
ALTER ROLE analyst SET statement_timeout = '120s';

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES (:'airflow_db', 'airflow'), (:'warehouse_db', 'coinwatch')) AS databases (name, owner)
WHERE name NOT IN (SELECT datname FROM pg_database) \gexec
-- By default every role may connect and create temporary tables.
REVOKE ALL ON DATABASE :"airflow_db", :"warehouse_db" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"warehouse_db" TO analyst;

\connect :"warehouse_db"
GRANT USAGE ON SCHEMA public TO analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO analyst;
-- Tables that later versions add.
ALTER DEFAULT PRIVILEGES FOR ROLE coinwatch IN SCHEMA public GRANT SELECT ON TABLES TO analyst;
