package nearside

import (
	"fmt"
	"reflect"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// ServiceConfig is what is different for one service.
type ServiceConfig struct {
	// Balancer takes the place of Config.Balancer; nil = that one.
	Balancer Balancer
	// Policy narrows the home region's and Config.Policy further.
	Policy route.Policy
	// SlowStart takes the place of Config.SlowStart; 0 = that one, below 0 = none.
	SlowStart time.Duration
	// NoEjection is Config.NoEjection for this service; one of them is enough.
	NoEjection bool
	// Subset takes the place of Config.Subset; 0 = that one, below 0 = all instances.
	Subset int
}

// checkBalancer returns what is wrong with a configured balancer.
func checkBalancer(b Balancer) error {
	if v := reflect.ValueOf(b); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("it is a nil %T: leave it out for RoundRobin", b)
	}
	if own, ok := b.(ours); ok {
		return own.check()
	}
	return nil
}

// looksAtKeys reports whether the key of a call may matter to the balancer.
func looksAtKeys(b Balancer) bool {
	switch b.(type) {
	case BuiltIn, PeakEWMA, *PeakEWMA:
		return false
	}
	return true
}

// checkServices returns the configurations of services by their key.
func (cfg *Config) checkServices() error {
	cfg.services = make(map[api.ServiceKey]ServiceConfig, len(cfg.Services))
	for name, sc := range cfg.Services {
		key, err := parse(name, cfg.Namespace)
		if err != nil {
			return fmt.Errorf("nearside: Config.Services: %w", err)
		}
		if _, twice := cfg.services[key]; twice {
			return fmt.Errorf("nearside: Config.Services names %s twice: use one of its names", key)
		}
		if sc.Balancer == nil {
			sc.Balancer = cfg.Balancer
		}
		if err := checkBalancer(sc.Balancer); err != nil {
			return fmt.Errorf("nearside: Config.Services[%q]: %w", name, err)
		}
		if sc.SlowStart == 0 {
			sc.SlowStart = cfg.SlowStart
		}
		switch {
		case sc.Subset == 0:
			sc.Subset = cfg.Subset
		case sc.Subset < 0:
			sc.Subset = subsetIsOff
		}
		if err := checkSubset(sc.Subset); err != nil {
			return fmt.Errorf("nearside: Config.Services[%q]: Subset: %w", name, err)
		}
		cfg.services[key] = sc.settled(cfg)
	}
	return nil
}

// of returns what holds for a service.
func (cfg *Config) of(key api.ServiceKey) ServiceConfig {
	if sc, ok := cfg.services[key]; ok {
		return sc
	}
	return ServiceConfig{Balancer: cfg.Balancer, SlowStart: cfg.SlowStart, Subset: cfg.Subset}.settled(cfg)
}

// settled returns sc with what follows from it and cfg.
func (sc ServiceConfig) settled(cfg *Config) ServiceConfig {
	switch sc.Balancer.(type) {
	case ConsistentHash, *ConsistentHash:
		// Each instance has its own keys: their rates of success cannot be compared, and one
		// key whose calls fail would have instance after instance ejected.
		sc.NoEjection = true
	}
	sc.NoEjection = sc.NoEjection || cfg.NoEjection
	return sc
}
