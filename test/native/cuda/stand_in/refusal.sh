#!/bin/sh
# refusal.sh STATUS TEXT COMMAND…: the command ends with the status, and says the text.
status=$1
text=$2
shift 2
said=$("$@" 2>&1)
got=$?
echo "$said" | tail -5
[ "$got" -eq "$status" ] || { echo "exit status $got, not $status"; exit 1; }
case $said in *"$text"*) ;; *) echo "does not say: $text"; exit 1 ;; esac
