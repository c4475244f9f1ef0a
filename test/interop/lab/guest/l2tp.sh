# What the L2TP cases share: strongSwan's IKEv1 with the kernel's ESP, xl2tpd, pppd. Sourced in the guest.
. /lab/ikev2.sh
. /lab/ppp.sh
modprobe -a l2tp_ppp l2tp_netlink pppol2tp af_key cbc des_generic 2>/dev/null
sysctl -qw net.ipv6.conf.default.accept_ra=2 2>/dev/null

# transport_connection SERVER KEY [ESP] [IKE]: IKEv1 for UDP port 1701.
transport_connection() {
  cat >/etc/swanctl/swanctl.conf <<CONF
connections {
  lab {
    version = 1
    remote_addrs = $1
    proposals = ${4:-aes256-sha1-modp2048}
    dpd_delay = 10s
    local {
      auth = psk
    }
    remote {
      auth = psk
      id = %any
    }
    children {
      lab {
        mode = transport
        local_ts = dynamic[udp/1701]
        remote_ts = dynamic[udp/1701]
        esp_proposals = ${3:-aes256-sha1,aes128-sha1}
      }
    }
  }
}
secrets {
  ike {
    secret = "$2"
  }
}
CONF
}

# l2tp_up SERVER USER PASSWORD [METHOD]: a call of xl2tpd.
l2tp_up() {
  local i
  rm -f /out/ppp.log
  rm -rf /run/xl2tpd
  mkdir -p /etc/xl2tpd /run/xl2tpd
  printf '"%s" * "%s" *\n' "$2" "$3" >/etc/ppp/chap-secrets
  cp /etc/ppp/chap-secrets /etc/ppp/pap-secrets
  ppp_options "${4:-mschap-v2}" "user $2" 'mtu 1400' 'mru 1400' >/etc/ppp/options.guest
  cat >/etc/xl2tpd/xl2tpd.conf <<CONF
[global]
access control = no
port = 1701
force userspace = ${XL2TPD_USERSPACE:-no}
debug tunnel = yes
debug state = yes
[lac lab]
lns = $1
pppoptfile = /etc/ppp/options.guest
length bit = yes
require authentication = no
name = $2
ppp debug = yes
redial = ${XL2TPD_REDIAL:-no}
redial timeout = 2
max redials = 30
CONF
  setsid xl2tpd -D -c /etc/xl2tpd/xl2tpd.conf -C /run/xl2tpd/control >/out/client.log 2>&1 &
  echo $! >/run/client.pid
  for i in $(seq 50); do
    [ -p /run/xl2tpd/control ] && break
    sleep 0.1
  done
  # Opening a pipe that nobody reads would wait for ever.
  timeout 5 sh -c "echo 'c lab' >/run/xl2tpd/control"
  wait_ppp "$(cat /run/client.pid)" 20
}

l2tp_down() {
  [ -p /run/xl2tpd/control ] && timeout 2 sh -c "echo 'd lab' >/run/xl2tpd/control"
  sleep 0.5
  ppp_down
  charon_stop
}
