# Ends what a cluster started and removes its directory, once the owner of the cluster is gone.
#
# $1 is the directory of the cluster. Standard input is a pipe whose only writer is the owner: when
# the owner ends, in whatever way, the pipe ends. Each of its lines is one of
#   started PID    a process runs; it leads a process group of its own
#   ended PID      the owner has waited for it; the number may belong to a stranger from now on
#   undo COMMAND   to be run after the last process has ended
# Newer lines are undone first.

trap '' HUP INT QUIT TERM
dir=$1
pids=
undo=
failures=0

main() {
    while read -r verb rest; do
        case $verb in
        started) pids="$rest $pids" ;;
        ended) forget "$rest" ;;
        undo) undo="$rest
$undo" ;;
        esac
    done
    for pid in $pids; do
        end "$pid" || complain "process $pid does not end"
    done
    while read -r command; do
        [ -z "$command" ] || sh -c "$command" || complain "failed: $command"
    done <<EOF
$undo
EOF
    # After a failure the directory stays, because it holds the log that says what is left behind.
    [ "$failures" -eq 0 ] && rm -rf "$dir"
}

forget() {
    rest=
    for pid in $pids; do
        [ "$pid" = "$1" ] || rest="$rest$pid "
    done
    pids=$rest
}

end() {
    # CONT, because a process that is stopped does not hear TERM.
    kill -s TERM -- "-$1" 2>/dev/null
    kill -s CONT -- "-$1" 2>/dev/null
    ended_within 100 "$1"
    kill -s KILL -- "-$1" 2>/dev/null
    ended_within 100 "$1"
}

# The first argument counts twentieths of a second.
ended_within() {
    tries=$1
    while is_running "$2"; do
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.05
    done
}

# A zombie has ended, although nobody has waited for it. (Where there is no /proc, the owner waits.)
is_running() {
    kill -s 0 "$1" 2>/dev/null && ! grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"
}

complain() {
    failures=$((failures + 1))
    echo "$1" >&2
}

main
