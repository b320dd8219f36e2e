#!/bin/sh
# Brings ClamAV's definitions up to date, once. To be run from cron or by a sidecar, beside clamgate (README.md).
#
# usage: update.sh [OPTION ...]
#
#   --config-file FILE   freshclam's configuration (default: $CLAMGATE_DEFINITIONS__FRESHCLAM__CONFIG_FILE,
#                        else freshclam.conf beside this script)
#   --datadir DIR        the database directory (default: $CLAMGATE_DEFINITIONS__DIR, else /var/lib/clamav)
#   --max-age-hours N    older definitions are a failure (default: 72; 0: any age is right)
#   --require NAMES      databases that must be there (default: "main daily bytecode"; "": any will do)
#   --timeout-secs N     a run of freshclam that takes longer is ended (default: 1800)
#   --pid-file FILE      clamgate's process id, as $CLAMGATE_PID: after a change it gets SIGHUP and reloads at once.
#                        Not needed: clamgate looks at the directory every minute by itself
#   --check              only look at which definitions there are, do not run freshclam
#   --quiet              say nothing unless something is wrong
#
# Exit codes:
#
#   0   the definitions are there and young enough
#   1   the same, but freshclam failed or did not end in time; the next run may mend it
#   2   there are no definitions, or one of --require is missing
#   3   the definitions are too old, whatever freshclam said
#   64  wrong usage, or a program is missing
#   75  another update is under way; nothing was done
#
# freshclam's own exit code is not enough: it is 0 as well while a mirror refuses (429), even if a first download stopped half
# way. So this looks at the databases. All messages go to stderr.
set -eu

say() { printf 'clamgate-update: %s\n' "$*" >&2; }
chat() { [ "$quiet" ] || say "$@"; }
usage() { say "$1"; say "hint: see the top of $0"; exit 64; }

config_file=${CLAMGATE_DEFINITIONS__FRESHCLAM__CONFIG_FILE:-$(dirname -- "$0")/freshclam.conf}
datadir=${CLAMGATE_DEFINITIONS__DIR:-/var/lib/clamav}
max_age_hours=72
require='main daily bytecode'
timeout_secs=1800
pid=${CLAMGATE_PID:-}
pid_file=
check=
quiet=

while [ $# -gt 0 ]; do
  case $1 in
    --check) check=yes; shift; continue ;;
    --quiet) quiet=yes; shift; continue ;;
    --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --config-file=* | --datadir=* | --max-age-hours=* | --require=* | --timeout-secs=* | --pid-file=*)
      option=${1%%=*} value=${1#*=}; shift ;;
    --config-file | --datadir | --max-age-hours | --require | --timeout-secs | --pid-file)
      [ $# -ge 2 ] || usage "$1 needs a value"
      option=$1 value=$2; shift 2 ;;
    *) usage "unknown option $1" ;;
  esac
  case $option in
    --config-file) config_file=$value ;;
    --datadir) datadir=$value ;;
    --max-age-hours) max_age_hours=$value ;;
    --require) require=$value ;;
    --timeout-secs) timeout_secs=$value ;;
    --pid-file) pid_file=$value ;;
  esac
done
for number in "$max_age_hours" "$timeout_secs"; do
  case $number in '' | *[!0-9]* | 0?*) usage "'$number' is not a whole number" ;; esac
done
[ -d "$datadir" ] || usage "$datadir is not a directory"
datadir=$(cd -- "$datadir" && pwd) # freshclam wants an absolute path

# The database files, one a line; two listings differ when anything was replaced, added or removed.
listing() {
  for file in "$datadir"/*; do
    case $file in
      *.cvd | *.cld | *.cud | *.cbc | *.cdb | *.crb | *.fp | *.ftm | *.gdb | *.hdb | *.hdu | *.hsb | *.hsu | *.idb | *.ign | \
        *.ign2 | *.ldb | *.ldu | *.mdb | *.mdu | *.msb | *.msu | *.ndb | *.ndu | *.pdb | *.sfp | *.wdb | *.yar | *.yara)
        # A file that is gone since the glob was replaced by freshclam.
        if [ -f "$file" ]; then stat -L -c '%i %s %.9Y %n' -- "$file" 2>/dev/null || :; fi ;;
    esac
  done
}

# Whether a .cvd is not what its header says: freshclam compares versions only and would keep it. Reads the whole file, so
# --check leaves it out.
damaged() {
  case $check$1 in yes* | *.cld | *.cud) return 1 ;; esac
  [ "$(tail -c +513 -- "$1" | md5sum | cut -d' ' -f1)" != "$(printf %s "$2" | cut -d: -f6)" ] || return 1
  say "warning: $1 is damaged"
  say "hint: remove it and run this again; freshclam does not replace it before the next version"
}

# Sets found (the names of the signed databases), age (seconds; empty without definitions) and described. Signed databases
# say in their header when they were built, ClamAV-VDB:date:version:…:epoch. The daily one counts if there is one, else the
# newest file.
look() {
  found='' newest='' newest_of_all='' described='' described_of_all=''
  for file in "$datadir"/*; do
    [ -f "$file" ] || continue
    case $file in
      *.cvd | *.cld | *.cud)
        header=$(head -c 512 -- "$file" | tr -cd '[:print:]')
        built=$(printf %s "$header" | cut -d: -f9 | tr -d ' ')
        version=$(printf %s "$header" | cut -d: -f3)
        case $header in ClamAV-VDB:*) ;; *) built='' ;; esac
        case $built in '' | *[!0-9]*) say "warning: $file is not a signed database"; continue ;; esac
        damaged "$file" "$header" && continue
        base=${file##*/} found="$found ${base%.*} "
        text="$base version $version, built $(date -u -d "@$built" +%Y-%m-%dT%H:%M:%SZ)" ;;
      *.hdb | *.hsb | *.ldb | *.mdb | *.msb | *.ndb | *.yar | *.yara)
        built=$(stat -L -c %Y -- "$file") text="${file##*/}, written $(date -u -r "$file" +%Y-%m-%dT%H:%M:%SZ)" ;;
      *) continue ;;
    esac
    if [ -z "$newest_of_all" ] || [ "$built" -gt "$newest_of_all" ]; then newest_of_all=$built described_of_all=$text; fi
    case ${file##*/} in
      daily.*) if [ -z "$newest" ] || [ "$built" -gt "$newest" ]; then newest=$built described=$text; fi ;;
    esac
  done
  [ "$newest" ] || newest=$newest_of_all described=$described_of_all
  age=
  if [ "$newest" ]; then
    age=$(($(date +%s) - newest))
    described="$described ($((age / 3600)) h ago)"
  fi
}

# Ends with what the databases themselves say. $1: 1 when freshclam failed, else 0.
judge() {
  look
  if [ -z "$age" ]; then
    say "error: no definitions in $datadir"; exit 2
  fi
  for name in $require; do
    case $found in
      *" $name "*) ;;
      *) say "error: the definitions are incomplete: $datadir has neither $name.cvd nor $name.cld"; exit 2 ;;
    esac
  done
  if [ "$max_age_hours" -gt 0 ] && [ "$age" -gt $((max_age_hours * 3600)) ]; then
    say "error: the definitions are older than $max_age_hours h: $described"; exit 3
  elif [ "$1" -ne 0 ]; then
    say "warning: no complete update; in use: $described"; exit 1
  fi
  chat "definitions: $described"; exit 0
}

# Tells clamgate, if it is known which process that is. SIGHUP would end any other program, so a stale id must not get it.
notify() {
  [ -z "$pid_file" ] || pid=$(cat -- "$pid_file" 2>/dev/null) || { say "warning: cannot read $pid_file"; return 0; }
  case $pid in
    '') return 0 ;;
    0* | *[!0-9]*) say "warning: '$pid' is not a process id" ;;
    *)
      if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != clamgate ]; then
        say "warning: process $pid is not clamgate; it gets no SIGHUP"
      elif kill -HUP "$pid"; then
        chat "sent SIGHUP to process $pid"
      else
        say "warning: cannot signal process $pid; clamgate finds the change by itself"
      fi ;;
  esac
}

[ -z "$check" ] || judge 0

[ -r "$config_file" ] || usage "cannot read $config_file"
for program in freshclam flock timeout; do
  command -v "$program" >/dev/null || usage "$program is not installed"
done

# Root becomes the owner of the directory, so that the files belong to one user whoever runs this.
owner=$(stat -c %u -- "$datadir") group=$(stat -c %g -- "$datadir")
as_owner() {
  if [ "$(id -u)" -eq 0 ] && [ "$owner" -ne 0 ]; then
    setpriv --reuid="$owner" --regid="$group" --clear-groups "$@"
  else
    "$@"
  fi
}

# A run that was ended leaves its download behind, some hundred megabytes.
as_owner find "$datadir" -maxdepth 1 -type d -name 'tmp.??????????' -mmin +1440 -exec rm -rf -- '{}' + || :

before=$(listing)
code=0
as_owner flock --nonblock --conflict-exit-code 75 "$datadir/.update.lock" \
  timeout --kill-after=10 "$timeout_secs" \
  freshclam --config-file="$config_file" --datadir="$datadir" --stdout ${quiet:+--quiet} >&2 || code=$?
after=$(listing)

case $code in
  0) ;;
  75) say "another update is under way in $datadir"; exit 75 ;;
  124 | 137) say "error: freshclam took longer than $timeout_secs s and was ended" ;;
  *) say "error: the update failed with exit code $code; databases that were not replaced stay as they are" ;;
esac
if [ "$before" != "$after" ]; then
  chat "changed: $(printf '%s\n%s\n' "$before" "$after" | sort | uniq -u | sed '/^$/d; s|.*/||' | sort -u | paste -s -d ' ')"
  notify
else
  chat "no database changed"
fi
if [ "$code" -eq 0 ]; then judge 0; else judge 1; fi
