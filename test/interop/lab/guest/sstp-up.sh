# sstp-up.sh SERVER CA METHOD USER PASSWORD: dials with Debian's sstp-client and pppd.
. /lab/ppp.sh
server=$1 ca=$2 method=$3 user=$4 password=$5
rm -f /out/ppp.log /out/client.log
# sstpc 1.0.18 asks to be told of answers only when its first write to TLS had to wait for one. A guest
# can be so near that the server's hello is there before it looks, and then its event loop is empty and
# it ends. A wire with some delay, as every real one has, keeps it waiting.
modprobe sch_netem 2>/dev/null
tc qdisc replace dev vec0 root netem delay 2ms limit 10000
sysctl -qw net.ipv6.conf.default.accept_ra=2 2>/dev/null
# With --password sstpc reads the MS-CHAPv2 or PAP log-in on the wire. It does not know CHAP-MD5
# there: then the secret is pppd's, and sstpc learns from its pppd plugin that the log-in is done.
if [ "$method" = chap ]; then
  echo "\"$user\" * \"$password\" *" >/etc/ppp/chap-secrets
  ppp_options "$method" "user $user" >/etc/ppp/options.guest
  login=()
else
  ppp_options "$method" >/etc/ppp/options.guest
  login=(--user "$user" --password "$password")
fi
setsid sstpc --log-level 3 --log-stderr --ca-cert "$ca" "${login[@]}" "$server" \
  file /etc/ppp/options.guest nodetach >/out/client.log 2>&1 &
echo $! >/run/client.pid
wait_ppp $! 20
