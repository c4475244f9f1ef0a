# What the scripts of SSTP clients share. Sourced in the guest, after ppp.sh.
#
# sstpc 1.0.18 asks to be told of answers only when its first write to TLS, which sends the client's
# hello and looks for the server's, had to wait for that. In a lab the server's can be there already, more
# so when the host lets the guest pause between the two; then the event loop of sstpc is empty and it ends.
# All that follows comes from its event loop. So the hello of the server is dropped until sstpc is seen
# waiting; TCP brings it again after a fifth of a second. No delay would do: a pause may be of any length.
modprobe -a sch_ingress cls_u32 act_gact 2>/dev/null

# hold_hello: drops TCP segments from port 443, with a header of 32 bytes, that begin with a TLS record
# of a handshake (22) which begins with a ServerHello (2).
hold_hello() {
  tc qdisc replace dev vec0 ingress &&
    tc filter replace dev vec0 ingress prio 443 protocol ip u32 \
      match ip protocol 6 0xff match ip sport 443 0xffff match u8 0x80 0xf0 at 32 \
      match u8 22 0xff at 52 match u8 2 0xff at 57 action drop
}

let_hello() { tc filter del dev vec0 ingress prio 443 protocol ip 2>/dev/null; }

# sstpc_dial LOG OPTION...: starts sstpc with these options, and returns its process as $sstpc once it
# waits for the server's hello, or has ended, or after 20 s.
sstpc_dial() {
  local log=$1 since=$EPOCHSECONDS
  shift
  hold_hello
  setsid sstpc --log-level 3 --log-stderr "$@" >"$log" 2>&1 &
  sstpc=$!
  until is_waiting "$log" || [ $((EPOCHSECONDS - since)) -ge 20 ]; do nap 0.02; done
  let_hello
}

# is_waiting LOG: whether $sstpc sleeps, now that it has a connection; nothing but its event loop does.
is_waiting() {
  local stat
  stat=$(<"/proc/$sstpc/stat") || return 0
  [[ $(<"$1") == *'Connected to'* ]] && stat=$(<"/proc/$sstpc/stat") && [[ $stat == *') S '* ]]
} 2>/dev/null
