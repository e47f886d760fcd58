#!/bin/sh
# Calls that fail in the programs of a pipeline, one after the other. Either all passes as it should, to the bit; or the
# program says why in one line and leaves with 1, its neighbours end with it, and nothing stays behind.
. "$(dirname "$0")/../tap.sh"
inject=$HSSL_BIN/fault/inject.so
cd "$T" || exit 1
if ! LD_PRELOAD=$inject hssl-info --version >/dev/null 2>&1; then
    skip 'failing calls' 'these programs are sanitized, and that does not go with LD_PRELOAD'
    done_testing
fi
mkdir run && export XDG_RUNTIME_DIR="$T/run" TMPDIR="$T/run"
hssl-synth -n 6 -s 24 s.db 2>/dev/null || exit 1

# A program of the pipeline with the fault in it; its status goes to rc.NAME, what it says to err.NAME.
part() {
    at=$1
    shift
    if [ "$at" = "$faulty" ]; then
        HSSL_FAULT=$fault:$n HSSL_FAULT_HIT=$T/hit HSSL_FAULT_PROGRAM=$at LD_PRELOAD=$inject $limit "$@" 2>"err.$at"
    else
        $limit "$@" 2>"err.$at"
    fi
    echo $? >"rc.$at"
}
pipeline() {
    part hssl-load hssl-load s.db --epochs 2 |
        part hssl-multicrop hssl-multicrop --global-size 16 --local 2 --local-size 8 |
        part hssl-augment hssl-augment -j2 |
        part hssl-tap hssl-tap --json --sums >/dev/null
}
shown() { sed -n 's/"medium":"[a-z]*"//g; s/"shared":{[^}]*}//g; /"type":"data"/p' err.hssl-tap; }
faulty= fault= n=0
pipeline
shown | sort >want
is 'a pipeline to compare with' "$(cat rc.* | tr '\n' ' ')$(wc -l <want)" '0 0 0 0 12'

# walk PROGRAM 'CALL:HOW ...'
walk() {
    faulty=$1 runs=0 bad=
    for fault in $2; do
        n=1
        while [ $n -lt 20000 ]; do
            rm -f hit
            pipeline
            [ -e hit ] || break
            runs=$((runs + 1))
            rc=$(cat "rc.$faulty") said=$(grep -cv -e ': warning: ' -e ' started anew; ' -e '^{"type"' -e '"level":"[^e]' "err.$faulty")
            case $rc in
            0)  shown | sort >got
                cmp -s got want || [ "$(cat rc.hssl-tap)" != 0 ] || bad="$bad $fault:$n:lost"
                [ "$said" -le "$most" ] || bad="$bad $fault:$n:$said-lines" ;;
            1)  [ "$said" -ge 1 ] && [ "$said" -le $((1 + most)) ] || { bad="$bad $fault:$n:$said-lines"; }
                # Whoever fails after its work was done has not to be noticed.
                shown | sort >got
                [ "$(cat rc.hssl-tap)" = 1 ] || cmp -s got want || bad="$bad $fault:$n:unnoticed" ;;
            *)  bad="$bad $fault:$n:exit-$rc" ;;
            esac
            for p in hssl-load hssl-multicrop hssl-augment hssl-tap; do
                [ "$(cat "rc.$p")" -le 1 ] || [ $p = "$faulty" ] || bad="$bad $fault:$n:$p-exit-$(cat "rc.$p")"
            done
            until_true '[ -z "$(ls run)" ]' || # a worker ends a moment after its hub
                { bad="$bad $fault:$n:left-behind"; rm -rf run/*; }
            n=$((n < 4 * dense ? n + 1 : n + n / (2 * dense)))
        done
    done
    is "$faulty: $runs failing calls" "$bad" ""
    note "$faulty: $runs failing calls"
    ok "$faulty: there were some" "[ $runs -gt 0 ]"
}
dense=$(siege 1)
calls='open:EMFILE mmap:ENOMEM memfd:EMFILE malloc:ENOMEM write:EIO write:short read:EIO zmq_ctx_new:EMFILE
    zmq_socket:EMFILE zmq_bind:EIO zmq_connect:EIO zmq_msg_init_size:ENOMEM zmq_msg_send:EIO zmq_msg_recv:EIO zmq_poll:EIO'
most=0
walk hssl-load "$calls pread:EIO"
walk hssl-multicrop "$calls"
most=1 # a worker that is replaced has said why
walk hssl-augment "$calls pipe:EMFILE spawn:EAGAIN"
most=0
walk hssl-tap "$calls"
done_testing
