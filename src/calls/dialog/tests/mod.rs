mod bounds;
mod captures;
mod kit;
mod repeats;
mod states;
mod values;
