export { Forwarding, type ForwardingSettings, type ForwardingStatus } from './forwarding.ts'
export { TunInterface, type TunSettings } from './tun-interface.ts'
