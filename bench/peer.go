package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// proxy is one program under test.
type proxy struct {
	name string

	// tool is the program that it needs, empty when the benchmark brings it.
	tool string

	// version are the arguments that make tool print its version.
	version []string

	optional bool   // measured when its tool happens to be installed, or by name
	perConn  bool   // balances connections, not RPCs, and holds no idle ones
	source   source // translators: what it is built from
	lone     bool   // knows one backend only
	ours     bool   // is held against the targets, and shows its metrics

	// command writes the configuration for a place and says how to start.
	command func(b *bench, s site) (command, error)
}

// site is where and for what a proxy is started.
type site struct {
	dir      string       // its own, empty
	addr     string       // host:port to listen on
	admin    string       // host:port, for those with a port of their own for it
	backends [2]string    // host:port
	pair     *certificate // nil: in clear
	routes   int          // sluice: how many routes the table has
	schema   []byte       // sluice: descriptors of the translated service, nil without one
}

// peers are the proxies that sluice is measured against, in the order of the
// table. README.md says why each is configured as it is.
var peers = []proxy{
	{name: "nginx", tool: "nginx", version: []string{"-v"}, command: nginxCommand},
	{name: "haproxy", tool: "haproxy", version: []string{"-v"}, command: haproxyCommand},
	{name: "nghttpx", tool: "nghttpx", version: []string{"--version"}, command: nghttpxCommand},
	{name: "tcprelay", perConn: true, command: relayCommand(true)},
	{name: "tcpcopy", perConn: true, optional: true, command: relayCommand(false)},
	{name: "caddy", tool: "caddy", version: []string{"version"}, optional: true, command: caddyCommand},
	{name: "traefik", tool: "traefik", version: []string{"version"}, optional: true, command: traefikCommand},
	{name: "envoy", tool: "envoy", version: []string{"--version"}, optional: true, command: envoyCommand},
}

// oneCore keeps a proxy written in Go at the one core that it is pinned to,
// whatever its runtime would make of it.
var oneCore = []string{"GOMAXPROCS=1"}

// fill replaces the words in braces of a configuration, which the languages of
// the peers leave alone.
func fill(template string, s site, more ...string) string {
	_, port, _ := net.SplitHostPort(s.addr)
	words := []string{"{dir}", s.dir, "{addr}", s.addr, "{port}", port, "{a}", s.backends[0], "{b}", s.backends[1]}
	for i, backend := range s.backends {
		_, port, _ := net.SplitHostPort(backend)
		words = append(words, fmt.Sprintf("{port%d}", i), port)
	}
	if s.pair != nil {
		words = append(words, "{cert}", s.pair.cert, "{key}", s.pair.key, "{both}", s.pair.both)
	}
	return strings.NewReplacer(append(words, more...)...).Replace(template)
}

func writeConfig(s site, name, text string) (string, error) {
	file := filepath.Join(s.dir, name)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// either is yes for a site in TLS, else no.
func (s site) either(yes, no string) string {
	if s.pair != nil {
		return yes
	}
	return no
}

const nginxConfig = `daemon off;
{user}
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr error;
events { worker_connections {conns}; }
http {
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  upstream bench {
    server {a};
    server {b};
    keepalive 6000;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }
  server {
    listen {addr} {ssl} http2 backlog=4096;
    {pair}
    location /bench.v1.Echo/ { grpc_pass grpc://bench; }
  }
}
`

func nginxCommand(b *bench, s site) (command, error) {
	user := ""
	if os.Getuid() == 0 {
		// The worker would become another user, who cannot look into dir.
		user = "user root;"
	}
	text := fill(nginxConfig, s, "{user}", user,
		"{conns}", fmt.Sprint(b.openFiles-100), // nginx: descriptors of its own beside them
		"{ssl}", s.either("ssl", ""),
		"{pair}", s.either(fill("ssl_certificate {cert}; ssl_certificate_key {key}; ssl_session_cache off;", s), ""))
	file, err := writeConfig(s, "nginx.conf", text)
	return command{
		argv: []string{b.tools["nginx"], "-p", s.dir, "-e", "stderr", "-c", file},
		end:  syscall.SIGTERM, // its master hands it to the worker
	}, err
}

// With strict-limits HAProxy refuses to start when twice maxconn is above the
// limit of open files; it shares its connections to the backends and stays far
// below.
const haproxyConfig = `global
  nbthread 1
  maxconn {conns}
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend bench
  bind {addr} backlog 4096 {tls}
  use_backend echo if { path_beg /bench.v1.Echo/ }
backend echo
  balance roundrobin
  server a {a} proto h2
  server b {b} proto h2
`

func haproxyCommand(b *bench, s site) (command, error) {
	text := fill(haproxyConfig, s,
		"{conns}", fmt.Sprint(b.conns+100),
		"{tls}", s.either(fill("ssl crt {both} alpn h2", s), "proto h2"))
	file, err := writeConfig(s, "haproxy.cfg", text)
	return command{argv: []string{b.tools["haproxy"], "-db", "-f", file}}, err
}

func nghttpxCommand(b *bench, s site) (command, error) {
	host, port, err := net.SplitHostPort(s.addr)
	argv := []string{
		b.tools["nghttpx"], "--conf=/dev/null", "--log-level=ERROR", "--workers=1",
		"--frontend=" + host + "," + port + s.either("", ";no-tls"),
		"--frontend-http2-read-timeout=1h", "--backlog=4096",
	}
	for _, backend := range s.backends {
		host, port, err := net.SplitHostPort(backend)
		if err != nil {
			return command{}, err
		}
		argv = append(argv, "--backend="+host+","+port+";/"+service+"/;proto=h2")
	}
	// A catch-all is compulsory.
	argv = append(argv, "--backend=127.0.0.1,9;/;proto=h2")
	if s.pair != nil {
		argv = append(argv, "--no-ocsp", s.pair.key, s.pair.cert)
	}
	return command{argv: argv, end: syscall.SIGTERM}, err
}

func relayCommand(splice bool) func(*bench, site) (command, error) {
	return func(b *bench, s site) (command, error) {
		argv := []string{
			b.self, "relay", "-listen", s.addr, "-backends", strings.Join(s.backends[:], ","),
			fmt.Sprintf("-splice=%t", splice),
		}
		return command{argv: argv, env: oneCore}, nil
	}
}

const caddyConfig = `{
  admin off
  auto_https off
  servers {
    protocols h1 h2 h2c
  }
}
{scheme}://:{port} {
  bind 127.0.0.1
  {pair}
  reverse_proxy /bench.v1.Echo/* h2c://{a} h2c://{b} {
    lb_policy round_robin
  }
}
`

func caddyCommand(b *bench, s site) (command, error) {
	text := fill(caddyConfig, s, "{scheme}", s.either("https", "http"), "{pair}", s.either(fill("tls {cert} {key}", s), ""))
	file, err := writeConfig(s, "Caddyfile", text)
	home := []string{"HOME=" + s.dir, "XDG_DATA_HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir}
	argv := []string{b.tools["caddy"], "run", "--adapter", "caddyfile", "--config", file}
	return command{argv: argv, env: append(home, oneCore...)}, err
}

const traefikStatic = `global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints:
  bench:
    address: "{addr}"
    transport: {respondingTimeouts: {idleTimeout: 1h}}
providers: {file: {filename: "{dir}/dynamic.yaml"}}
`

const traefikDynamic = `http:
  routers:
    bench:
      rule: PathPrefix("/bench.v1.Echo/")
      service: bench
      {tls}
  services:
    bench:
      loadBalancer:
        servers: [{url: "h2c://{a}"}, {url: "h2c://{b}"}]
{pair}
`

func traefikCommand(b *bench, s site) (command, error) {
	dynamic := fill(traefikDynamic, s, "{tls}", s.either("tls: {}", ""),
		"{pair}", s.either(fill("tls: {certificates: [{certFile: {cert}, keyFile: {key}}]}", s), ""))
	if _, err := writeConfig(s, "dynamic.yaml", dynamic); err != nil {
		return command{}, err
	}
	file, err := writeConfig(s, "traefik.yaml", fill(traefikStatic, s))
	return command{argv: []string{b.tools["traefik"], "--configFile=" + file}, env: oneCore}, err
}

const envoyConfig = `static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: {port}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: HTTP2
          route_config:
            virtual_hosts:
            - name: bench
              domains: ["*"]
              routes: [{match: {prefix: /bench.v1.Echo/}, route: {cluster: bench, timeout: 0s}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
{pair}
  clusters:
  - name: bench
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: bench
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {port0}}}}
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {port1}}}}
`

const envoyTLS = `      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: {cert}}, private_key: {filename: {key}}}]
`

func envoyCommand(b *bench, s site) (command, error) {
	text := fill(envoyConfig, s, "{pair}", s.either(fill(envoyTLS, s), ""))
	file, err := writeConfig(s, "envoy.yaml", text)
	argv := []string{b.tools["envoy"], "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"}
	return command{argv: argv}, err
}
