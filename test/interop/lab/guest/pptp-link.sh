# pptp-link.sh SERVER USER PASSWORD OPTION...: one more PPTP call of this client, to be a link of the bundle
# that its first call began. Waits until pppd says that it has joined.
. /lab/ppp.sh
server=$1 user=$2 password=$3
shift 3
rm -f /out/ppp-link.log
printf '"%s" * "%s" *\n' "$user" "$password" >/etc/ppp/chap-secrets
ppp_options mschap-v2 "user $user" "$@" | sed 's|/out/ppp.log|/out/ppp-link.log|' \
  >/etc/ppp/options.link
setsid pppd pty "pptp $server --nolaunchpppd --loglevel 2 --nobuffer" \
  file /etc/ppp/options.link nodetach >/out/client-link.log 2>&1 &
echo $! >/run/client-link.pid
for i in $(seq 100); do
  grep -q 'Link attached to' /out/ppp-link.log 2>/dev/null && exit 0
  kill -0 "$(cat /run/client-link.pid)" 2>/dev/null || break
  sleep 0.2
done
tail -n 40 /out/ppp-link.log /out/client-link.log 2>/dev/null
exit 1
