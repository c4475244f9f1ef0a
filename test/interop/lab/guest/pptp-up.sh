# pptp-up.sh SERVER USER PASSWORD UNIT OPTION...: dials with Debian's pptp-linux and pppd's kernel MPPE.
# UNIT is the number of the ppp device: 0 unless another call is up already.
. /lab/ppp.sh
modprobe -a ppp_mppe 2>/dev/null
server=$1 user=$2 password=$3 unit=$4
shift 4
rm -f /out/ppp.log /out/client.log
sysctl -qw net.ipv6.conf.default.accept_ra=2 2>/dev/null
printf '"%s" * "%s" *\n' "$user" "$password" >/etc/ppp/chap-secrets
ppp_options mschap-v2 "user $user" "unit $unit" "$@" >/etc/ppp/options.guest
setsid pppd pty "pptp $server --nolaunchpppd --loglevel 2 --nobuffer" \
  file /etc/ppp/options.guest nodetach >/out/client.log 2>&1 &
echo $! >/run/client.pid
wait_ppp $! 20
