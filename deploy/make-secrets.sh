#!/bin/sh
# Makes every secret of a new deployment that starts from nothing: passwords, addresses of the database, keys.
#   sh deploy/make-secrets.sh deploy/secrets [database host, "database" if left out]
# Files that exist stay as they are. Keep a copy of keys/ apart from the copies of the database, and one of keys/epochs/
# apart from both (docs/how-to/backup.md).
set -eu
folder=${1:?folder to write to}
host=${2:-database}
umask 077
# In migrate/ it stays empty: the folder of gateway/ is mounted there, so that each key of an epoch exists once.
mkdir -p "$folder/postgres" "$folder/gateway/keys/epochs" "$folder/migrate/keys/epochs"

fresh() { [ ! -e "$1" ]; }
password() { if fresh "$1"; then openssl rand -hex 24 > "$1"; fi; }

password "$folder/postgres/postgres_password"
password "$folder/postgres/siis_owner_password"
password "$folder/postgres/siis_app_password"
app="postgresql://siis_app:$(cat "$folder/postgres/siis_app_password")@$host/siis"
owner="postgresql://siis_owner:$(cat "$folder/postgres/siis_owner_password")@$host/siis"
fresh "$folder/gateway/siis_database_url" && printf '%s' "$app" > "$folder/gateway/siis_database_url"
fresh "$folder/migrate/siis_database_url" && printf '%s' "$app" > "$folder/migrate/siis_database_url"
fresh "$folder/migrate/siis_database_owner_url" && printf '%s' "$owner" > "$folder/migrate/siis_database_owner_url"

keys="$folder/gateway/keys"
# The key-encryption key: 32 bytes. Without it nothing personal can be read again.
fresh "$keys/kek.key" && openssl rand -out "$keys/kek.key" 32
# The key of the log's first epoch: 32 bytes. Once an epoch was closed (siis erasure finish) there is a later one, and
# the first must never come back.
if [ -z "$(find "$keys/epochs" -name '*.key')" ]; then openssl rand -out "$keys/epochs/1.key" 32; fi
# Signs the checkpoints of the audit log (Ed25519) and the access tokens (EC P-256).
fresh "$keys/log-signing.pem" && openssl genpkey -algorithm ed25519 -out "$keys/log-signing.pem"
fresh "$keys/token-current.pem" &&
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$keys/token-current.pem"
fresh "$folder/migrate/keys/kek.key" && cp "$keys/kek.key" "$folder/migrate/keys/kek.key"

if [ "$(id -u)" = 0 ]; then
  # The users of the two images; nobody else may read these.
  chown -R 10001:10001 "$folder/gateway" "$folder/migrate"
  chown -R 999:999 "$folder/postgres"
else
  echo "Still to do as root: chown -R 10001:10001 $folder/gateway $folder/migrate" >&2
  echo "                     chown -R 999:999 $folder/postgres" >&2
fi
