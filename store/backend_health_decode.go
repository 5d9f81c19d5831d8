package store

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of what a HealthCheck, an OutlierDetection and BackendLimits may say.
const (
	minCheckInterval = 100 * time.Millisecond
	maxCheckInterval = time.Hour
	minCheckTimeout  = time.Millisecond
	maxCheckTimeout  = 10 * time.Minute
	maxThreshold     = 100

	maxConsecutiveErrors = 10_000
	minEjectFor          = 100 * time.Millisecond
	maxEjectFor          = 24 * time.Hour
	minRateInterval      = time.Second
	maxRateInterval      = time.Hour
	maxRateRequests      = 1_000_000
	minDeviations        = 0.1
	maxDeviations        = 10

	maxBackendLimit = 10_000_000
)

// What holds when a SuccessRate or an AdaptiveConcurrency does not say.
const (
	DefaultRateInterval     = 10 * time.Second
	DefaultRateMinEndpoints = 5
	DefaultRateMinRequests  = 100
	DefaultRateDeviations   = 1.9
	DefaultMinLimit         = 3
	DefaultMaxLimit         = 1000
)

// requestCodes tell of the request and not of the endpoint that answers it so.
var requestCodes = []Code{
	"CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "UNAUTHENTICATED",
}

func readHealthCheck(v *value, protocol Protocol) *HealthCheck {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	m.exactlyOne("grpc", "tcp", "http")
	h := &HealthCheck{
		GRPC:               readGRPCCheck(m.optional("grpc")),
		TCP:                readTCPCheck(m.optional("tcp")),
		HTTP:               readHTTPCheck(m.optional("http")),
		Interval:           m.optional("interval").duration(DefaultCheckInterval, minCheckInterval, maxCheckInterval),
		Timeout:            m.optional("timeout").duration(DefaultCheckTimeout, minCheckTimeout, maxCheckTimeout),
		HealthyThreshold:   m.optional("healthyThreshold").integer(DefaultHealthyThreshold, 1, maxThreshold),
		UnhealthyThreshold: m.optional("unhealthyThreshold").integer(DefaultUnhealthyThreshold, 1, maxThreshold),
	}
	if grpc := m.optional("grpc"); !grpc.absent() && protocol == ProtocolHTTP1 {
		grpc.fault("needs HTTP/2: protocol %s or %s", ProtocolH2C, ProtocolTLS)
	}
	return h
}

func readGRPCCheck(v *value) *GRPCCheck {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &GRPCCheck{Service: m.optional("service").word(checkHealthService)}
}

func readTCPCheck(v *value) *TCPCheck {
	if v.absent() {
		return nil
	}
	v.mapping().finish()
	return &TCPCheck{}
}

func readHTTPCheck(v *value) *HTTPCheck {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &HTTPCheck{Path: m.required("path").word(checkProbePath), Host: m.optional("host").word(checkProbeHost)}
}

// checkHealthService is for the service of a grpc.health.v1 check: any text that the
// server knows itself by.
func checkHealthService(s string) string { return checkPrintable(s, maxNameLen) }

// checkProbePath is for the path of a GET, with a query or without.
func checkProbePath(s string) string {
	switch {
	case !strings.HasPrefix(s, "/"):
		return `want a path that begins with "/"`
	case len(s) > maxPathLen:
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxPathLen)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '#' {
			return `want printable ASCII without blanks and "#"; escape what is neither`
		}
	}
	return ""
}

// checkProbeHost is for a host with or without a port.
func checkProbeHost(s string) string {
	if checkServerName(s) == "" {
		return ""
	}
	return checkAddress(s)
}

func readOutlierDetection(v *value) *OutlierDetection {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	def := DefaultOutlierDetection()
	first, most := m.optional("ejectFor"), m.optional("maxEjectFor")
	o := &OutlierDetection{
		Disabled:          m.optional("disabled").boolean(),
		ConsecutiveErrors: m.optional("consecutiveErrors").integer(DefaultConsecutiveErrors, 1, maxConsecutiveErrors),
		Codes:             readCodes(m.optional("codes"), def.Codes, checkOutlierCode),
		EjectFor:          first.duration(DefaultEjectFor, minEjectFor, maxEjectFor),
		MaxEjectFor:       most.duration(0, minEjectFor, maxEjectFor),
		MaxEjectedPercent: m.optional("maxEjectedPercent").integer(DefaultMaxEjectedPercent, 1, 100),
		SuccessRate:       readSuccessRate(m.optional("successRate")),
	}
	if o.MaxEjectFor != 0 && o.MaxEjectFor < o.EjectFor {
		most.fault("%s is shorter than ejectFor, %s", o.MaxEjectFor, o.EjectFor)
	}
	o.setDefaults()
	return o
}

// checkOutlierCode is for a code that can tell of an endpoint.
func checkOutlierCode(s string) string {
	if slices.Contains(requestCodes, Code(s)) {
		return "tells of the request, and never counts against an endpoint"
	}
	return checkCode(s)
}

func readSuccessRate(v *value) *SuccessRate {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &SuccessRate{
		Interval:     m.optional("interval").duration(DefaultRateInterval, minRateInterval, maxRateInterval),
		MinEndpoints: m.optional("minEndpoints").integer(DefaultRateMinEndpoints, 2, maxDiscovered),
		MinRequests:  m.optional("minRequests").integer(DefaultRateMinRequests, 1, maxRateRequests),
		Deviations:   m.optional("deviations").number(DefaultRateDeviations, minDeviations, maxDeviations),
	}
}

func readBackendLimits(v *value) *BackendLimits {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	return &BackendLimits{
		MaxRequests:         m.optional("maxRequests").integer(0, 1, maxBackendLimit),
		MaxPending:          m.optional("maxPending").integer(0, 1, maxBackendLimit),
		MaxRetries:          m.optional("maxRetries").integer(0, 1, maxBackendLimit),
		AdaptiveConcurrency: readAdaptiveConcurrency(m.optional("adaptiveConcurrency")),
	}
}

func readAdaptiveConcurrency(v *value) *AdaptiveConcurrency {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	defer m.finish()
	most := m.optional("maxLimit")
	a := &AdaptiveConcurrency{
		MinLimit: m.optional("minLimit").integer(0, 1, maxBackendLimit),
		MaxLimit: most.integer(0, 1, maxBackendLimit),
	}
	if a.MaxLimit != 0 && a.MaxLimit < a.MinLimit {
		most.fault("%d is less than minLimit, %d", a.MaxLimit, a.MinLimit)
	}
	a.setDefaults()
	return a
}

func (h *HealthCheck) setDefaults() {
	if h.Interval == 0 {
		h.Interval = Duration(DefaultCheckInterval)
	}
	if h.Timeout == 0 {
		h.Timeout = Duration(DefaultCheckTimeout)
	}
	if h.HealthyThreshold == 0 {
		h.HealthyThreshold = DefaultHealthyThreshold
	}
	if h.UnhealthyThreshold == 0 {
		h.UnhealthyThreshold = DefaultUnhealthyThreshold
	}
}

func (o *OutlierDetection) setDefaults() {
	def := DefaultOutlierDetection()
	if o.ConsecutiveErrors == 0 {
		o.ConsecutiveErrors = def.ConsecutiveErrors
	}
	if len(o.Codes) == 0 {
		o.Codes = def.Codes
	}
	if o.EjectFor == 0 {
		o.EjectFor = def.EjectFor
	}
	if o.MaxEjectFor == 0 {
		o.MaxEjectFor = max(def.MaxEjectFor, o.EjectFor)
	}
	if o.MaxEjectedPercent == 0 {
		o.MaxEjectedPercent = def.MaxEjectedPercent
	}
	if o.SuccessRate != nil {
		o.SuccessRate.setDefaults()
	}
}

func (r *SuccessRate) setDefaults() {
	if r.Interval == 0 {
		r.Interval = Duration(DefaultRateInterval)
	}
	if r.MinEndpoints == 0 {
		r.MinEndpoints = DefaultRateMinEndpoints
	}
	if r.MinRequests == 0 {
		r.MinRequests = DefaultRateMinRequests
	}
	if r.Deviations == 0 {
		r.Deviations = DefaultRateDeviations
	}
}

func (a *AdaptiveConcurrency) setDefaults() {
	if a.MaxLimit == 0 {
		a.MaxLimit = max(DefaultMaxLimit, a.MinLimit)
	}
	if a.MinLimit == 0 {
		a.MinLimit = min(DefaultMinLimit, a.MaxLimit)
	}
}
