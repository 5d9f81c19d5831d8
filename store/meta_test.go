package store

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func TestDurationIsWrittenAsTheGatewayAPIWritesIt(t *testing.T) {
	tests := []struct {
		text, want string // want is the shortest form, "" when refused
	}{
		{"5s", "5s"},
		{"1h", "1h"},
		{"90m", "1h30m"},
		{"1500ms", "1s500ms"},
		{"0s", "0s"},
		{"99999h", "99999h"},
		{"1s1s1s1s", "4s"},
		{"1h2m3s4ms", "1h2m3s4ms"},
		{"", ""},
		{"5", ""},
		{"s", ""},
		{"-5s", ""},
		{"1.5s", ""},
		{"1us", ""},
		{"100000s", ""},
		{"1s1s1s1s1s", ""},
		{"5s5", ""},
		{" 5s", ""},
	}
	for _, tt := range tests {
		var d Duration
		err := d.UnmarshalText([]byte(tt.text))
		if (err != nil) != (tt.want == "") {
			t.Errorf("%q: error %v, want one: %v", tt.text, err, tt.want == "")
		}
		if err == nil && d.String() != tt.want {
			t.Errorf("%q: got %s, want %s", tt.text, d, tt.want)
		}
		if err != nil && err.Error() != "duration "+quote(tt.text)+": want a form like 5s or 1m30s" {
			t.Errorf("%q: got %v", tt.text, err)
		}
	}
	if got, _ := json.Marshal(Duration(5*time.Second + time.Microsecond)); string(got) != `"5s"` {
		t.Errorf("as JSON: got %s, want \"5s\"", got)
	}
}

func TestBackendSpecDefaults(t *testing.T) {
	var s BackendSpec
	s.SetDefaults()
	want := BackendSpec{
		Protocol:       ProtocolH2C,
		LoadBalancing:  LoadBalancing{Policy: LeastRequest},
		Connection:     Connection{MaxStreams: 1000},
		ConnectTimeout: Duration(5 * time.Second),
	}
	if s.Protocol != want.Protocol || s.LoadBalancing != want.LoadBalancing || s.Connection != want.Connection || s.ConnectTimeout != want.ConnectTimeout {
		t.Errorf("got %+v, want %+v", s, want)
	}
	said := BackendSpec{Protocol: ProtocolTLS, LoadBalancing: LoadBalancing{Policy: RoundRobin}, Connection: Connection{7, 3}, ConnectTimeout: 1}
	kept := said
	kept.SetDefaults()
	if kept.Protocol != said.Protocol || kept.LoadBalancing != said.LoadBalancing || kept.Connection != said.Connection || kept.ConnectTimeout != 1 {
		t.Errorf("what was said became %+v, want %+v", kept, said)
	}
}

// A field that is there has its defaults, one that is nil stays nil.
func TestBackendSpecDefaultsOfWhatIsThere(t *testing.T) {
	s := BackendSpec{
		DNS: &DNS{SRV: "a"}, Registration: &Registering{},
		LoadBalancing: LoadBalancing{
			Policy: Maglev, HashOn: &HashOn{Path: true}, SlowStart: &SlowStart{Window: 1}, ZonePreference: &ZonePreference{},
		},
		HealthCheck:      &HealthCheck{TCP: &TCPCheck{}},
		OutlierDetection: &OutlierDetection{EjectFor: Duration(time.Hour), SuccessRate: &SuccessRate{}},
		Limits:           &BackendLimits{AdaptiveConcurrency: &AdaptiveConcurrency{}},
	}
	s.SetDefaults()
	for name, pair := range map[string][2]any{
		"dns":          {*s.DNS, DNS{SRV: "a", Refresh: Duration(30 * time.Second), MaxEndpoints: 1000}},
		"registration": {*s.Registration, Registering{1000, Duration(10 * time.Minute)}},
		"slow start":   {*s.LoadBalancing.SlowStart, SlowStart{1, 1, 10}},
		"zones":        {*s.LoadBalancing.ZonePreference, ZonePreference{70}},
		"bound":        {s.LoadBalancing.LoadBound, 125},
		"threshold":    {s.LoadBalancing.Panic(), 50},
		"success rate": {*s.OutlierDetection.SuccessRate, SuccessRate{Duration(10 * time.Second), 5, 100, 1.9}},
		"ejection":     {[]Duration{s.OutlierDetection.EjectFor, s.OutlierDetection.MaxEjectFor}, []Duration{Duration(time.Hour), Duration(time.Hour)}},
		"concurrency":  {*s.Limits.AdaptiveConcurrency, AdaptiveConcurrency{3, 1000}},
		"checks": {
			*s.HealthCheck,
			HealthCheck{TCP: &TCPCheck{}, Interval: Duration(5 * time.Second), Timeout: Duration(time.Second), HealthyThreshold: 1, UnhealthyThreshold: 3},
		},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %+v, want %+v", name, pair[0], pair[1])
		}
	}
	var none BackendSpec
	none.SetDefaults()
	if none.DNS != nil || none.Registration != nil || none.HealthCheck != nil || none.OutlierDetection != nil || none.Limits != nil ||
		!reflect.DeepEqual(none.LoadBalancing, LoadBalancing{Policy: LeastRequest}) {
		t.Errorf("what nobody asked for came about: %+v", none)
	}
	if got := none.Outliers(); !reflect.DeepEqual(got, DefaultOutlierDetection()) {
		t.Errorf("outliers in force %+v, want the defaults", got)
	}
	none.OutlierDetection = &OutlierDetection{Disabled: true}
	if got := none.Outliers(); got != nil {
		t.Errorf("turned off, and in force are %+v", got)
	}
}
