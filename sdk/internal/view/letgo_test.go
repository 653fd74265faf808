package view

import (
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P10: what was let go keeps its age, in memory and in any later file.
func TestLetGoKeepsItsAge(t *testing.T) {
	b := book()
	begin(b, false)
	far := origin(at("eu", 1, 9))
	far.AgeMS = 7000
	script(t, b, t0, item(at("us", 1, 5), "a"), replica(at("us", 1, 5), at("eu", 1, 9), "f"), synced(at("us", 1, 5), far))
	now := t0.Add(4 * time.Second)
	si, ok := b.ServiceImage(key, now)
	if !ok || !si.Youngest().Equal(t0) {
		t.Fatalf("its youngest part is of %s, want %s", si.Youngest(), t0)
	}
	later := t0.Add(time.Hour)
	script(t, b, later, synced(at("us", 1, 6), origin(at("eu", 1, 9)))) // the region is young, the service is not
	img := b.Image(later)
	img.Services = []ServiceImage{si}
	img.Stamp()
	for _, c := range img.Services[0].Regions {
		if age := later.Sub(c.At); age < time.Hour || age > time.Hour+10*time.Second {
			t.Errorf("%s: %s old in a file written an hour later", c.Version.Region, age)
		}
	}
	c := New("us")
	c.Load(img, later)
	c.Want(key)
	c.LoadService(si, later)
	if o := c.View(key, later).Regions[1].Origin; o.Region != "us" || o.State != api.AgeExpired {
		t.Errorf("asked for again after an hour: %+v", o)
	}
}

// P4: of what several Books saw of a region the newest version stays, with the age it has by now.
func TestNewestOfTheRegions(t *testing.T) {
	part := func(now time.Time, list ...api.Version) Image {
		img := Image{SavedAt: now}
		for _, v := range list {
			img.Regions = append(img.Regions, origin(v))
		}
		return img
	}
	var img Image
	img.Newest(part(t0, at("us", 2, 5), at("eu", 1, 9), at("ap", 1, 1)))
	first := part(t0.Add(time.Minute), at("us", 1, 90), at("eu", 1, 10))
	img.Newest(first)
	b := New("us")
	now := t0.Add(2 * time.Minute)
	b.Load(img, now)
	for _, want := range []struct {
		version api.Version
		age     time.Duration
	}{{at("us", 2, 5), 2 * time.Minute}, {at("eu", 1, 10), time.Minute}, {at("ap", 1, 1), 2 * time.Minute}} {
		o := b.Origin(want.version.Region, now)
		if o.Version() != want.version || o.AgeMS != want.age.Milliseconds() {
			t.Errorf("%+v, want %v of %s ago", o, want.version, want.age)
		}
	}
	if first.Regions[0].Revision != 90 {
		t.Error("what was passed in was changed")
	}
}
