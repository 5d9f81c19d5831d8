package store

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

func readBackendSpec(m *mapping) BackendSpec {
	defer m.finish()
	spec := BackendSpec{
		Endpoints:      readEndpoints(m),
		DNS:            readDNS(m.optional("dns")),
		Registration:   readRegistering(m.optional("registration")),
		Protocol:       readProtocol(m),
		LoadBalancing:  readLoadBalancing(m.optional("loadBalancing")),
		Connection:     readConnection(m.optional("connection")),
		ConnectTimeout: m.optional("connectTimeout").duration(DefaultConnectTimeout, time.Millisecond, maxConnectTimeout),

		OutlierDetection: readOutlierDetection(m.optional("outlierDetection")),
		Limits:           readBackendLimits(m.optional("limits")),
	}
	spec.HealthCheck = readHealthCheck(m.optional("healthCheck"), spec.Protocol)
	spec.Accepts = readAccepts(m.optional("accepts"), spec.Protocol)
	if tls := m.optional("tls"); !tls.absent() {
		spec.TLS = readTLS(tls.mapping())
		if spec.Protocol == ProtocolH2C {
			tls.fault("needs protocol: %s, or %s", ProtocolTLS, ProtocolHTTP1)
		}
	}
	spec.SetDefaults()
	return spec
}

func readEndpoints(m *mapping) []Endpoint {
	v := m.optional("endpoints")
	if m.optional("dns").absent() && m.optional("registration").absent() { // who else would bring them
		v = m.required("endpoints")
	}
	seen := make(map[string]bool)
	endpoints := each(v.list(0), func(v *value) Endpoint {
		m := v.mapping()
		defer m.finish()
		address := m.required("address")
		e := Endpoint{
			Address: address.word(checkEndpoint),
			Weight:  uint32(m.optional("weight").integer(defaultEndpointWeight, 0, maxWeight)),
			Zone:    m.optional("zone").word(checkEndpointLabel),
			Version: m.optional("version").word(checkEndpointLabel),
		}
		if e.Address != "" && seen[e.Address] {
			address.fault("%s is there already", e.Address)
		}
		seen[e.Address] = true
		return e
	})
	if endpoints == nil {
		endpoints = []Endpoint{} // an empty list is written as one
	}
	return endpoints
}

func readProtocol(m *mapping) Protocol {
	return oneOf(m.optional("protocol"), "protocol", ProtocolH2C, ProtocolH2C, ProtocolTLS, ProtocolHTTP1)
}

// readAccepts reads what the endpoints understand; a list of nothing means the default.
func readAccepts(v *value, protocol Protocol) []Accept {
	items := v.list(0)
	all := each(items, func(v *value) Accept {
		return oneOf(v, "protocol", "", AcceptGRPC, AcceptGRPCWeb, AcceptConnect, AcceptHTTP)
	})
	for i, accept := range all {
		switch {
		case accept != "" && slices.Contains(all[:i], accept):
			items[i].fault("%s is there already", accept)
		case accept == AcceptGRPC && protocol == ProtocolHTTP1:
			items[i].fault("%s needs HTTP/2: protocol %s or %s", accept, ProtocolH2C, ProtocolTLS)
		}
	}
	return all
}

func readConnection(v *value) Connection {
	m := v.mapping()
	defer m.finish()
	return Connection{
		MaxStreams:     m.optional("maxStreams").integer(DefaultMaxStreams, 1, maxStreamsLimit),
		MaxConnections: m.optional("maxConnections").integer(0, 1, maxConnectionsLimit),
	}
}

func readTLS(m *mapping) *BackendTLS {
	defer m.finish()
	ca, caFile := m.optional("ca"), m.optional("caFile")
	cert, certKey := m.optional("certFile"), m.optional("keyFile")
	if !ca.absent() && !caFile.absent() {
		caFile.fault("ca is there already: want one of the two")
	}
	if !cert.absent() && certKey.absent() {
		cert.fault("needs keyFile too")
	}
	if cert.absent() && !certKey.absent() {
		certKey.fault("needs certFile too")
	}
	return &BackendTLS{
		CA:         ca.secret(checkCertificates),
		CAFile:     caFile.file(),
		ServerName: m.optional("serverName").word(checkServerName),
		CertFile:   cert.file(),
		KeyFile:    certKey.file(),
	}
}

// file reads the name of a file, which is relative to the folder of this text.
func (v *value) file() string {
	name, ok := v.checked(checkFile)
	if !ok || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(v.doc.file), name)
}

// checkCertificates is for PEM with at least one certificate, and nothing else.
func checkCertificates(s string) string {
	rest, n := []byte(s), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		n++
		if block.Type != "CERTIFICATE" {
			return fmt.Sprintf("want certificates in PEM, not a %s", printable(short(block.Type)))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Sprintf("certificate %d: %v", n, err)
		}
	}
	if n == 0 {
		return "want a certificate in PEM"
	}
	return ""
}
