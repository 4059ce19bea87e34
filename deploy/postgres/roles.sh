#!/bin/sh
# Makes the two roles and the database of the gateway on a PostgreSQL server, or brings their passwords up to date.
# Connects as a superuser by the usual PG* variables. PASSWORDS is the folder with the two password files.
set -eu
export PASSWORDS="${PASSWORDS:-/run/secrets}"
: "${PGUSER:=postgres}"
export PGUSER
psql -X -q -v ON_ERROR_STOP=1 -d postgres <<'SQL'
\set owner_password `cat "$PASSWORDS/siis_owner_password"`
\set app_password `cat "$PASSWORDS/siis_app_password"`
SELECT 'CREATE ROLE siis_owner LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'siis_owner') \gexec
SELECT 'CREATE ROLE siis_app LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'siis_app') \gexec
SELECT 'CREATE DATABASE siis OWNER siis_owner' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'siis') \gexec
ALTER ROLE siis_owner NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
ALTER ROLE siis_app NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'app_password';
REVOKE ALL ON DATABASE siis FROM PUBLIC;
GRANT CONNECT ON DATABASE siis TO siis_app;
SQL
