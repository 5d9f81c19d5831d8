package store

import "time"

// What holds when a HealthCheck or an OutlierDetection does not say.
const (
	DefaultCheckInterval      = 5 * time.Second
	DefaultCheckTimeout       = time.Second
	DefaultHealthyThreshold   = 1
	DefaultUnhealthyThreshold = 3

	DefaultConsecutiveErrors = 5
	DefaultEjectFor          = 30 * time.Second
	DefaultMaxEjectFor       = 5 * time.Minute
	DefaultMaxEjectedPercent = 50
)

// HealthCheck asks each endpoint whether it is well, every Interval, give or take a
// tenth. Exactly one of GRPC, TCP and HTTP is set.
type HealthCheck struct {
	GRPC *GRPCCheck `json:"grpc,omitempty"`
	TCP  *TCPCheck  `json:"tcp,omitempty"`
	HTTP *HTTPCheck `json:"http,omitempty"`

	Interval Duration `json:"interval"`
	Timeout  Duration `json:"timeout"` // of one check
	// HealthyThreshold and UnhealthyThreshold are how many checks in a row make an
	// endpoint healthy or unhealthy. The first of all decides alone.
	HealthyThreshold   int `json:"healthyThreshold"`
	UnhealthyThreshold int `json:"unhealthyThreshold"`
}

// GRPCCheck is grpc.health.v1, by Check every interval and, where the endpoint has it,
// by Watch, whose changes hold at once.
type GRPCCheck struct {
	Service string `json:"service"` // empty is the whole server
}

// TCPCheck is a connection that is made and closed.
type TCPCheck struct{}

// HTTPCheck is a GET that is answered 200 to 299.
type HTTPCheck struct {
	Path string `json:"path"`
	Host string `json:"host,omitempty"` // empty: the endpoint's address
}

// OutlierDetection takes an endpoint out of the choice for what its RPCs end with.
type OutlierDetection struct {
	Disabled bool `json:"disabled,omitempty"`
	// ConsecutiveErrors are how many RPCs in a row end with one of Codes, or without any
	// answer.
	ConsecutiveErrors int `json:"consecutiveErrors"`
	// Codes count against an endpoint. Those that tell of the request are refused.
	Codes []Code `json:"codes"`
	// EjectFor is how long the first time; the n-th time in a row it is n times as long,
	// up to MaxEjectFor. One RPC then tries whether it is well again.
	EjectFor          Duration     `json:"ejectFor"`
	MaxEjectFor       Duration     `json:"maxEjectFor"`
	MaxEjectedPercent int          `json:"maxEjectedPercent"` // of the endpoints; one of two may always be
	SuccessRate       *SuccessRate `json:"successRate,omitempty"`
}

// SuccessRate compares an endpoint with the others: one that succeeds less often than
// their mean less Deviations times their standard deviation is ejected.
type SuccessRate struct {
	Interval     Duration `json:"interval"`
	MinEndpoints int      `json:"minEndpoints"` // that have MinRequests in the interval
	MinRequests  int      `json:"minRequests"`
	Deviations   float64  `json:"deviations"`
}

// DefaultOutlierDetection is what holds for a Backend that does not say.
func DefaultOutlierDetection() *OutlierDetection {
	return &OutlierDetection{
		ConsecutiveErrors: DefaultConsecutiveErrors,
		Codes:             []Code{"UNAVAILABLE", "INTERNAL", "DATA_LOSS"},
		EjectFor:          Duration(DefaultEjectFor),
		MaxEjectFor:       Duration(DefaultMaxEjectFor),
		MaxEjectedPercent: DefaultMaxEjectedPercent,
	}
}

// Outliers is the outlier detection in force; nil when it is turned off.
func (s *BackendSpec) Outliers() *OutlierDetection {
	switch o := s.OutlierDetection; {
	case o == nil:
		return DefaultOutlierDetection()
	case o.Disabled:
		return nil
	default:
		return o
	}
}

// BackendLimits bound what one gateway lets a backend have at once; zero means no
// bound. What is over a limit is answered RESOURCE_EXHAUSTED, or UNAVAILABLE where
// another try may help.
type BackendLimits struct {
	MaxRequests int `json:"maxRequests,omitempty"` // open RPCs, streams included
	MaxPending  int `json:"maxPending,omitempty"`  // of those, who wait for a connection
	MaxRetries  int `json:"maxRetries,omitempty"`  // of those, second and later tries
	// AdaptiveConcurrency finds the bound of RPCs that wait for their answer to begin from
	// how long that takes.
	AdaptiveConcurrency *AdaptiveConcurrency `json:"adaptiveConcurrency,omitempty"`
}

// AdaptiveConcurrency is between which bounds the limit is looked for.
type AdaptiveConcurrency struct {
	MinLimit int `json:"minLimit"`
	MaxLimit int `json:"maxLimit"`
}
