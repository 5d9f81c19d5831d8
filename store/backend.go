package store

import (
	"encoding/json"
	"time"
)

// The kind of a Backend.
const (
	OwnGroup       = "sluice.dev"
	BackendVersion = OwnGroup + "/v1alpha1"
	BackendKind    = "Backend"
)

// What holds when a Backend does not say.
const (
	DefaultMaxStreams     = 1000
	DefaultConnectTimeout = 5 * time.Second
	defaultEndpointWeight = 1
	maxStreamsLimit       = 1_000_000
	maxConnectionsLimit   = 10_000
	maxConnectTimeout     = time.Hour
)

// Backend is a service behind the gateway: where it is, and how to speak to it.
type Backend struct {
	Meta `json:"metadata"`
	Spec BackendSpec `json:"spec"`
}

// BackendSpec is the wish itself.
type BackendSpec struct {
	// Endpoints may be an empty list: every RPC is then answered UNAVAILABLE, unless
	// DNS or Registration bring others.
	Endpoints []Endpoint `json:"endpoints"`
	DNS       *DNS       `json:"dns,omitempty"` // further endpoints are what a name stands for
	// Registration lets processes announce themselves; nil refuses them.
	Registration *Registering `json:"registration,omitempty"`
	Protocol     Protocol     `json:"protocol"`
	// Accepts are the protocols of requests that the endpoints understand themselves:
	// those are handed to them as they are, others are translated.
	Accepts        []Accept      `json:"accepts,omitempty"` // Accepted is what holds
	TLS            *BackendTLS   `json:"tls,omitempty"`     // not with ProtocolH2C, and may be nil with ProtocolTLS
	LoadBalancing  LoadBalancing `json:"loadBalancing"`
	Connection     Connection    `json:"connection"`
	ConnectTimeout Duration      `json:"connectTimeout"` // from dialling to the peer's SETTINGS

	HealthCheck      *HealthCheck      `json:"healthCheck,omitempty"`      // nil asks nobody
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"` // nil means the defaults: Outliers is what holds
	Limits           *BackendLimits    `json:"limits,omitempty"`           // nil sets none

	// Drains are of an effective set, and no part of a manifest: what holds for the
	// endpoints that DNS brings, in the order of the addresses. DrainOf looks it up.
	Drains []Drain `json:"-"`
}

// Endpoint is one address of a service.
type Endpoint struct {
	Address string `json:"address"` // host:port; the host is a name, an IPv4 or a bracketed IPv6
	Weight  uint32 `json:"weight"`  // relative to the others; 0 means no RPC at all
	Zone    string `json:"zone,omitempty"`
	Version string `json:"version,omitempty"` // of what runs there, for people
	// Source and Drain are of an effective set, and no part of a manifest.
	Source Source `json:"-"`
	Drain  *Drain `json:"-"` // Weight is 0 then; nil when it is not drained
}

// Source is who says that an endpoint is there.
type Source string

// The manifest itself, a name server, or the process that is there.
const (
	SourceStatic     Source = ""
	SourceDNS        Source = "dns"
	SourceRegistered Source = "registered"
)

// Protocol is what a backend speaks.
type Protocol string

// HTTP/2 with prior knowledge in clear, HTTP/2 in TLS by ALPN, and HTTP/1.1: in clear,
// or in TLS when the Backend has a BackendTLS.
const (
	ProtocolH2C   Protocol = "h2c"
	ProtocolTLS   Protocol = "tls"
	ProtocolHTTP1 Protocol = "http1"
)

// Accept is a protocol of requests that a backend understands by itself.
type Accept string

// Native gRPC, the two that web pages speak, and whatever else is HTTP.
const (
	AcceptGRPC    Accept = "GRPC"
	AcceptGRPCWeb Accept = "GRPCWeb"
	AcceptConnect Accept = "Connect"
	AcceptHTTP    Accept = "HTTP"
)

// Accepted is what the backend understands by itself. Backends that were kept when
// there was no such field do not say.
func (s *BackendSpec) Accepted() []Accept {
	if len(s.Accepts) == 0 {
		return s.Protocol.accepts()
	}
	return s.Accepts
}

// BackendTLS is how a backend is recognised, and what we show it. File names are
// relative to the folder of the text that declares them; Parse has joined the two.
type BackendTLS struct {
	CA         string `json:"ca,omitempty"`         // PEM; not with CAFile; neither means the system's
	CAFile     string `json:"caFile,omitempty"`     // PEM
	ServerName string `json:"serverName,omitempty"` // for SNI and the certificate; empty means the endpoint's host
	CertFile   string `json:"certFile,omitempty"`   // PEM; with KeyFile or not at all
	KeyFile    string `json:"keyFile,omitempty"`    // PEM
}

// Connection bounds the connections to one endpoint.
type Connection struct {
	// MaxStreams open at once on one connection, if the peer allows as many.
	MaxStreams int `json:"maxStreams"`
	// MaxConnections open at once; zero means the gateway's own bound.
	MaxConnections int `json:"maxConnections,omitempty"`
}

// SetDefaults gives each field that is zero, and whose zero says nothing, what
// holds for a text that leaves it out. Weights are not among them: zero is a weight.
// A field that is nil says nothing as a whole, and stays so.
func (s *BackendSpec) SetDefaults() {
	if s.Protocol == "" {
		s.Protocol = ProtocolH2C
	}
	s.Accepts = s.Accepted()
	s.LoadBalancing.setDefaults()
	if s.Connection.MaxStreams == 0 {
		s.Connection.MaxStreams = DefaultMaxStreams
	}
	if s.ConnectTimeout == 0 {
		s.ConnectTimeout = Duration(DefaultConnectTimeout)
	}
	if s.DNS != nil {
		s.DNS.setDefaults()
	}
	if s.Registration != nil {
		s.Registration.setDefaults()
	}
	if s.HealthCheck != nil {
		s.HealthCheck.setDefaults()
	}
	if s.OutlierDetection != nil {
		s.OutlierDetection.setDefaults()
	}
	if s.Limits != nil && s.Limits.AdaptiveConcurrency != nil {
		s.Limits.AdaptiveConcurrency.setDefaults()
	}
}

// addresses has those of the endpoints.
func (s *BackendSpec) addresses() map[string]bool {
	all := make(map[string]bool, len(s.Endpoints))
	for i := range s.Endpoints {
		all[s.Endpoints[i].Address] = true
	}
	return all
}

// accepts is what a backend understands that does not say.
func (p Protocol) accepts() []Accept {
	if p == ProtocolHTTP1 {
		return []Accept{AcceptHTTP}
	}
	return []Accept{AcceptGRPC}
}

// MarshalJSON writes a manifest that Parse accepts.
func (b *Backend) MarshalJSON() ([]byte, error) {
	type fields Backend
	return json.Marshal(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		*fields
	}{BackendVersion, BackendKind, (*fields)(b)})
}
