# What the IKEv2 cases share: strongSwan's charon with the kernel's own ESP. Sourced in the guest.
modprobe -a dummy esp4 esp6 xfrm_user xfrm_interface authenc gcm cbc ctr ipv6 2>/dev/null

# charon_start [LINE...]: starts the daemon with these lines in its section of strongswan.conf.
charon_start() {
  local i plugin
  {
    echo 'charon {'
    echo '  load_modular = yes'
    echo '  plugins { include strongswan.d/charon/*.conf }'
    echo '  filelog { l { path = /out/charon.log'
    echo '    default = 1'
    echo '    ike = 2'
    echo '    cfg = 2'
    echo '    flush_line = yes } }'
    printf '  %s\n' "$@"
    echo '}'
    echo 'swanctl { load = pem pkcs1 x509 revocation constraints pubkey openssl random pkcs8 }'
  } >/etc/strongswan.conf
  # No DNS here, and ESP is the kernel's.
  for plugin in resolve bypass-lan dhcp farp kernel-libipsec connmark forecast af-alg ha; do
    [ -f "/etc/strongswan.d/charon/$plugin.conf" ] &&
      sed -i 's/load = yes/load = no/' "/etc/strongswan.d/charon/$plugin.conf"
  done
  mkdir -p /etc/swanctl/conf.d /etc/swanctl/x509ca /etc/swanctl/x509 /etc/swanctl/private
  setsid /usr/lib/ipsec/charon >/out/charon.out.log 2>&1 &
  echo $! >/run/charon.own.pid
  for i in $(seq 100); do
    [ -S /run/charon.vici ] && break
    sleep 0.1
  done
  sleep 0.2
  swanctl --load-all || { tail -n 30 /out/charon.log; return 1; }
}

# charon_up CHILD: connects.
charon_up() {
  swanctl --initiate --child "$1" --timeout 45 && return
  tail -n 60 /out/charon.log
  return 1
}

charon_stop() {
  local pid
  pid=$(cat /run/charon.own.pid 2>/dev/null) || return 0
  swanctl --terminate --ike lab --timeout 3 >/dev/null 2>&1
  kill "$pid" 2>/dev/null
  for i in $(seq 30); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
  rm -f /run/charon.own.pid /run/charon.pid /run/charon.vici
  ip xfrm state flush
  ip xfrm policy flush
  return 0
}

# user_connection SERVER AUTH USER PASSWORD [ESP]: a road warrior. AUTH: pubkey or an EAP method: eap-tls.
user_connection() {
  local certs='' id=$3
  cp /out/ca.crt /etc/swanctl/x509ca/
  local eap="eap_id = $3"
  if [ "$2" = pubkey ] || [ "$2" = eap-tls ]; then
    cp /out/client.crt /etc/swanctl/x509/
    cp /out/client.key /etc/swanctl/private/
    certs='certs = client.crt'
  fi
  [ "$2" = pubkey ] && eap=''
  cat >/etc/swanctl/swanctl.conf <<CONF
connections {
  lab {
    version = 2
    remote_addrs = $1
    vips = 0.0.0.0, ::
    dpd_delay = 30s
    proposals = ${IKE:-aes256gcm16-prfsha256-ecp256,aes256-sha256-modp2048}
    local {
      auth = $2
      id = $id
      $eap
      $certs
    }
    remote {
      auth = pubkey
      id = vpn.lab
    }
    children {
      lab {
        remote_ts = 0.0.0.0/0, ::/0
        esp_proposals = ${5:-aes256gcm16-ecp256,aes256gcm16,aes256-sha256}
      }
    }
  }
}
secrets {
  eap {
    id = $3
    secret = "$4"
  }
}
CONF
}

# site_connection SERVER KEY LOCAL_ID REMOTE_ID LOCAL_NET REMOTE_NET: another gateway.
site_connection() {
  cat >/etc/swanctl/swanctl.conf <<CONF
connections {
  lab {
    version = 2
    remote_addrs = $1
    proposals = aes256gcm16-prfsha256-ecp256
    local {
      auth = psk
      id = $3
    }
    remote {
      auth = psk
      id = $4
    }
    children {
      lab {
        local_ts = $5
        remote_ts = $6
        esp_proposals = aes256gcm16-ecp256,aes256gcm16
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
