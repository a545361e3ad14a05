# Creates the passwords for docker-compose.yml, and the URLs that contain them, as files in secrets/
# or in the folder of the first argument. Fails if the folder exists. Only the owner can enter the
# folder; its files are readable by all users, because containers read them as different users.
set -eu
umask 022
folder="${1:-secrets}"
mkdir -m 700 "$folder"
keep() { printf '%s' "$2" >"$folder/$1"; }
password() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
database=$(password)
valkey=$(password)
keep postgres_password "$(password)"
keep database_password "$database"
keep valkey_password "$valkey"
keep chordwise_database_url "postgresql://chordwise:$database@postgres:5432/chordwise"
keep chordwise_broker_url "redis://:$valkey@valkey:6379/0"
