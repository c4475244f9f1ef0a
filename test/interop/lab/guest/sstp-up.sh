# sstp-up.sh SERVER CA METHOD USER PASSWORD: dials with Debian's sstp-client and pppd.
. /lab/ppp.sh
. /lab/sstp.sh
server=$1 ca=$2 method=$3 user=$4 password=$5
rm -f /out/ppp.log /out/client.log
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
sstpc_dial /out/client.log --ca-cert "$ca" "${login[@]}" "$server" file /etc/ppp/options.guest nodetach
echo "$sstpc" >/run/client.pid
wait_ppp "$sstpc" 20
