package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// config is what one node is told: by flags, by the environment and by its
// configuration file, the earlier winning. What it routes is not here but in
// the resources.
type config struct {
	// dataDir holds what the node keeps from one start to the next.
	dataDir string

	// listen is the one port, admin the operator's door; both host:port.
	// Port 0 takes a free one.
	listen, admin string

	// adminTLSCert and adminTLSKey are PEM files of the operator's door; both
	// empty means that it makes its own where it needs one. adminHosts are further
	// names by which it may be asked; adminPassword is a file with the password of
	// the account admin.
	adminTLSCert, adminTLSKey string
	adminHosts                []string
	adminPassword             string

	// resources are the files and directories with routes and backends.
	resources []string

	// allowUnresolved accepts references to backends that do not exist.
	allowUnresolved bool

	// tlsCert and tlsKey are PEM files; both empty means no TLS.
	// tlsClientCA, when set, makes client certificates obligatory.
	tlsCert, tlsKey, tlsClientCA string

	// grace is how long open streams may go on after the node was told to
	// end; drainDelay is how long new connections are taken before that,
	// unready, so that a balancer in front notices first.
	grace, drainDelay time.Duration

	// maxConnectionAge is when a client is asked to open another connection, 0 for
	// never; maxConnectionAgeGrace is how long its streams may go on then, 0 for as
	// long as they like.
	maxConnectionAge, maxConnectionAgeGrace time.Duration

	// proxyProtocol expects a PROXY header at the start of connections.
	proxyProtocol bool

	// trustedProxies are the peers whose word on the client's address is
	// believed; trustedHops is how many such peers stand in a row.
	trustedProxies []string
	trustedHops    int

	// gossip is how the node takes part in a cluster.
	gossip gossipConfig

	// zone is where the node is, by the word that endpoints use; empty says nothing.
	zone string

	// pprof serves Go's profiles on the admin port.
	pprof bool

	// logFormat is text or json.
	logFormat string
}

// Defaults that other parts of the program need to know.
const (
	defaultListen     = ":8080"
	defaultAdmin      = "127.0.0.1:8081"
	defaultConfigFile = "/etc/sluice/sluice.yaml"
	defaultGrace      = 30 * time.Second

	maxZone = 63 // characters, as of an endpoint's zone
)

// addFlags declares every setting once: the flag --NAME, the variable
// SLUICE_NAME and the key NAME of the configuration file all come from here.
func (c *config) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.dataDir, "data-dir", defaultDataDir(), "`directory` for what the node keeps")
	fs.StringVar(&c.listen, "listen", defaultListen, "`address` of the one port")
	fs.StringVar(&c.admin, "admin", defaultAdmin, "`address` of the admin API, health and metrics")
	fs.StringVar(&c.adminTLSCert, "admin-tls-cert", "", "PEM `file` with the certificate chain of the admin port")
	fs.StringVar(&c.adminTLSKey, "admin-tls-key", "", "PEM `file` with the key of --admin-tls-cert")
	fs.StringSliceVar(&c.adminHosts, "admin-hosts", nil, "further `names` by which the admin port may be asked; may be repeated")
	fs.StringVar(&c.adminPassword, "admin-password-file", "", "`file` with the password of the account admin")
	fs.StringSliceVar(&c.resources, "resources", nil, "`file` or directory with routes and backends; may be repeated")
	fs.BoolVar(&c.allowUnresolved, "allow-unresolved", false, "accept references to backends that do not exist")
	fs.StringVar(&c.tlsCert, "tls-cert", "", "PEM `file` with the certificate chain; turns TLS on")
	fs.StringVar(&c.tlsKey, "tls-key", "", "PEM `file` with the key of --tls-cert")
	fs.StringVar(&c.tlsClientCA, "tls-client-ca", "", "PEM `file` with the authorities of client certificates; makes one obligatory")
	fs.DurationVar(&c.grace, "grace", defaultGrace, "how long open streams may go on after SIGTERM")
	fs.DurationVar(&c.drainDelay, "drain-delay", 0, "how long to accept connections, unready, after SIGTERM")
	fs.DurationVar(&c.maxConnectionAge, "max-connection-age", 0, "when clients are asked to open another connection, a tenth more or less; 0 is never")
	fs.DurationVar(&c.maxConnectionAgeGrace, "max-connection-age-grace", 0, "how long streams may go on after that; 0 is as long as they like")
	fs.BoolVar(&c.proxyProtocol, "proxy-protocol", false, "expect a PROXY header (v1 or v2) from --trusted-proxies")
	fs.StringSliceVar(&c.trustedProxies, "trusted-proxies", nil, "`networks` (CIDR) of the proxies in front; may be repeated")
	fs.IntVar(&c.trustedHops, "trusted-hops", 0, "`number` of proxies in front whose x-forwarded-for is believed")
	c.gossip.addFlags(fs)
	fs.StringVar(&c.zone, "zone", "", "`name` of the zone that the node is in, as endpoints say theirs")
	fs.BoolVar(&c.pprof, "pprof", false, "serve profiles under /debug/pprof/ on the admin port")
	fs.StringVar(&c.logFormat, "log-format", "text", "`format` of the log: text or json")
}

// defaultDataDir is a system directory for root and the user's own otherwise.
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/sluice"
	}
	if state := os.Getenv("XDG_STATE_HOME"); state != "" {
		return filepath.Join(state, "sluice")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "sluice-data"
	}
	return filepath.Join(home, ".local", "state", "sluice")
}

// validate reports everything that is wrong with c at once.
func (c *config) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.dataDir == "" {
		fault("data-dir: empty, want a directory")
	}
	for _, door := range []struct{ name, addr string }{{"listen", c.listen}, {"admin", c.admin}} {
		if _, _, err := net.SplitHostPort(door.addr); err != nil {
			fault("%s %q: want host:port or :port", door.name, door.addr)
		}
	}
	if (c.tlsCert == "") != (c.tlsKey == "") {
		fault("tls-cert %q, tls-key %q: want both or none", c.tlsCert, c.tlsKey)
	}
	if (c.adminTLSCert == "") != (c.adminTLSKey == "") {
		fault("admin-tls-cert %q, admin-tls-key %q: want both or none", c.adminTLSCert, c.adminTLSKey)
	}
	if c.tlsClientCA != "" && c.tlsCert == "" {
		fault("tls-client-ca %q: needs tls-cert and tls-key", c.tlsClientCA)
	}
	if c.grace < 0 || c.drainDelay < 0 {
		fault("grace %s, drain-delay %s: want no negative time", c.grace, c.drainDelay)
	}
	for _, network := range c.trustedProxies {
		if _, err := parseNetwork(network); err != nil {
			fault("trusted-proxies %q: want a network such as 10.0.0.0/8 or an address", network)
		}
	}
	if c.maxConnectionAge != 0 && c.maxConnectionAge < time.Second {
		fault("max-connection-age %s: want 0 for never, or at least 1s", c.maxConnectionAge)
	}
	if c.maxConnectionAgeGrace < 0 {
		fault("max-connection-age-grace %s: want no negative time", c.maxConnectionAgeGrace)
	}
	if c.proxyProtocol && len(c.trustedProxies) == 0 {
		fault("proxy-protocol: needs trusted-proxies, else every client could claim any address")
	}
	if c.trustedHops < 0 {
		fault("trusted-hops %d: want 0 or more", c.trustedHops)
	}
	errs = append(errs, c.validateGossip())
	if len(c.zone) > maxZone || strings.ContainsFunc(c.zone, func(r rune) bool { return r <= ' ' || r > '~' }) {
		fault("zone %q: want a word of at most %d printable characters", c.zone, maxZone)
	}
	if c.logFormat != "text" && c.logFormat != "json" {
		fault("log-format %q: want text or json", c.logFormat)
	}
	return errors.Join(errs...)
}

// parseNetwork reads a network, or an address that stands for itself.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(s)
	return prefix.Masked(), err
}

// logger returns the log of the node in the format asked for.
func (c *config) logger(w io.Writer, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// trusted are the trusted proxies' networks, which validate has checked.
func (c *config) trusted() (list []netip.Prefix) {
	for _, network := range c.trustedProxies {
		if p, err := parseNetwork(network); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// graceOrNone is the grace as the gateway wants it: negative for none at all.
func (c *config) graceOrNone() time.Duration {
	if c.grace == 0 {
		return -1
	}
	return c.grace
}
