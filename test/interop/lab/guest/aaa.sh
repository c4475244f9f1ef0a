# What the AAA cases share: calls side by side, one for each way to log in; call N is the device pppN.
# Sourced in the guest.
. /lab/l2tp.sh
. /lab/sstp.sh
modprobe -a ppp_mppe 2>/dev/null

# login N METHOD USER PASSWORD OPTION...: who call N is. METHOD: pap, chap, mschap-v2, eap-mschapv2, eap-tls.
login() {
  local number=$1 method=$2 user=$3 password=$4 certificate=()
  shift 4
  printf '"%s" * "%s" *\n' "$user" "$password" >>/etc/ppp/chap-secrets
  cp /etc/ppp/chap-secrets /etc/ppp/pap-secrets
  [ "$method" = eap-tls ] &&
    certificate=('ca /out/ca.crt' 'cert /out/client.crt' 'key /out/client.key' need-peer-eap)
  ppp_options "${method/#eap-*/eap}" "user $user" "unit $number" "logfile /out/ppp$number.log" \
    'mtu 1400' 'mru 1400' "${certificate[@]}" "$@" >"/etc/ppp/options.call$number"
}

# sstp_calls SERVER N...
sstp_calls() {
  local server=$1 number sstpc
  shift
  for number in "$@"; do
    sstpc_dial "/out/client$number.log" --ca-cert /out/ca.crt --ipparam "call$number" \
      "$server" file "/etc/ppp/options.call$number" nodetach
  done
}

# pptp_calls SERVER N...: over the control connection of the first, once that is there.
pptp_calls() {
  local server=$1 number i
  shift
  for number in "$@"; do
    setsid pppd pty "pptp $server --nolaunchpppd --loglevel 2 --nobuffer" \
      file "/etc/ppp/options.call$number" nodetach >"/out/client$number.log" 2>&1 &
    for i in $(seq 50); do
      [[ $(</out/ppp$number.log) == *'rcvd [LCP'* ]] 2>/dev/null && break
      nap 0.1
    done
  done
}

# l2tp_calls SERVER N...: one xl2tpd for all of them. Its kernel can have but one tunnel to a server.
l2tp_calls() {
  local server=$1 number i
  shift
  rm -rf /run/xl2tpd
  mkdir -p /etc/xl2tpd /run/xl2tpd
  printf '%s\n' '[global]' 'access control = no' 'port = 1701' 'force userspace = yes' \
    >/etc/xl2tpd/xl2tpd.conf
  for number in "$@"; do
    printf '%s\n' "[lac call$number]" "lns = $server" "pppoptfile = /etc/ppp/options.call$number" \
      'length bit = yes' 'require authentication = no' 'ppp debug = yes' >>/etc/xl2tpd/xl2tpd.conf
  done
  setsid xl2tpd -D -c /etc/xl2tpd/xl2tpd.conf -C /run/xl2tpd/control >/out/client.log 2>&1 &
  for i in $(seq 50); do
    [ -p /run/xl2tpd/control ] && break
    nap 0.1
  done
  for number in "$@"; do
    timeout 5 sh -c "echo 'c call$number' >/run/xl2tpd/control"
    nap 0.2
  done
}

# has_call N: whether the call has an IPv4 address, within 30 s of the first question about any call.
has_call() {
  [ -e /run/calls.since ] || echo "$EPOCHSECONDS" >/run/calls.since
  until [[ $(</out/ppp$1.log) == *'local  IP address'* ]] 2>/dev/null; do
    [ $((EPOCHSECONDS - $(</run/calls.since))) -gt 30 ] && break
    nap 0.1
  done
  ip -4 -o addr show dev "ppp$1" 2>/dev/null | grep -q inet && return 0
  tail -n 40 "/out/ppp$1.log" "/out/client$1.log" /out/client.log 2>/dev/null
  return 1
}

# calls_down: hangs up as pppd does when it is told to, and waits until all are gone.
calls_down() {
  local i name
  pkill -TERM -x pppd
  for i in $(seq 100); do
    compgen -G '/sys/class/net/ppp*' >/dev/null || break
    nap 0.1
  done
  for name in sstpc pptp xl2tpd; do pkill -TERM -x $name; done
  nap 0.3
  for name in pppd sstpc pptp xl2tpd; do pkill -KILL -x $name; done
  charon_stop
  rm -f /etc/ppp/chap-secrets /etc/ppp/pap-secrets /run/calls.since /out/ppp?.log
  ! compgen -G '/sys/class/net/ppp*'
}
