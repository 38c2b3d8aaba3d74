// Package telemetry holds every metric that Fairlead exposes and the access log.
//
// Metrics are resolved when a routing table is installed and not for each request: whoever serves requests asks for a RuleMetrics, a PoolMetrics and a
// ListenerMetrics once and keeps them. Counting then allocates nothing and takes no lock.
//
// No label ever comes from a client. Methods, protocols, status codes and reasons are folded into fixed sets; hosts, paths and addresses are not labels at
// all. Series therefore exist for configured objects only, and go when their object goes.
//
// A nil *Metrics, a nil *AccessLog and the nil children that a nil *Metrics hands out are valid and do nothing.
package telemetry
