# What the scripts of PPP clients share. Sourced in the guest.
modprobe -a ppp_generic ppp_async ipv6 2>/dev/null
# Waiting by a program of its own takes much of the one processor here.
[ -p /run/nothing ] || mkfifo /run/nothing
exec 9<>/run/nothing
nap() { read -r -t "$1" -u 9 || return 0; }

# ppp_options METHOD EXTRA...: the options of pppd, with METHOD the only way to authenticate.
ppp_options() {
  local method=$1 other
  shift
  printf '%s\n' noauth nodefaultroute noipdefault ipcp-accept-local ipcp-accept-remote usepeerdns \
    debug 'logfile /out/ppp.log' 'lcp-echo-interval 10' 'lcp-echo-failure 3' +ipv6 "$@"
  for other in pap chap mschap mschap-v2 eap; do
    [ "$other" = "$method" ] || echo "refuse-$other"
  done
}

# wait_ppp PID SECONDS: until ppp0 has an IPv4 address; fails early when the process ends.
wait_ppp() {
  local i
  for i in $(seq $(($2 * 5))); do
    ip -4 -o addr show dev ppp0 2>/dev/null | grep -q inet && return 0
    kill -0 "$1" 2>/dev/null || break
    sleep 0.2
  done
  tail -n 12 /out/ppp.log /out/client.log 2>/dev/null
  return 1
}

# ppp_down: ends the client and waits until the link is gone.
ppp_down() {
  local pid i
  pid=$(cat /run/client.pid 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null
  for i in $(seq 50); do
    ip link show dev ppp0 >/dev/null 2>&1 || break
    sleep 0.2
  done
  kill -KILL "$pid" 2>/dev/null
  pkill -KILL pppd 2>/dev/null
  rm -f /run/client.pid
  ! ip link show dev ppp0 >/dev/null 2>&1
}
