# sstp-up.sh SERVER CA METHOD USER PASSWORD: dials with Debian's sstp-client and pppd.
. /lab/ppp.sh
server=$1 ca=$2 method=$3 user=$4 password=$5
rm -f /out/ppp.log /out/client.log
sysctl -qw net.ipv6.conf.default.accept_ra=2 2>/dev/null
ppp_options "$method" >/etc/ppp/options.guest
setsid sstpc --log-level 3 --log-stderr --ca-cert "$ca" --user "$user" --password "$password" \
  "$server" file /etc/ppp/options.guest nodetach >/out/client.log 2>&1 &
echo $! >/run/client.pid
wait_ppp $! 20
